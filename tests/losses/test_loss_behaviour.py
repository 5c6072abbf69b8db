"""What holds for every loss, whatever the labels."""

from __future__ import annotations

import pytest
import torch

from medseg.labels import LabelScheme
from medseg.losses import LOSSES, build_loss
from medseg.losses.combined import resize_labels

PLAIN = LabelScheme.from_mapping({"liver": 6, "tumour": 2}, ignore=9)
REGIONS = LabelScheme.from_mapping({"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}, ignore=9)
SCHEMES = {"indices": None, "plain": PLAIN, "regions": REGIONS}
VALUES = {"indices": [0, 1, 2], "plain": [0, 6, 2], "regions": [0, 1, 2, 4]}

everywhere = pytest.mark.parametrize("kind", SCHEMES)
# The gated CRF loss looks at the images, not at the labels; see `test_gated_crf.py`.
OF_LABELS = [name for name in LOSSES if name != "gated_crf"]
every_loss = pytest.mark.parametrize("name", OF_LABELS)
# To the others, where a voxel lies is nothing; skeletons and distances are made of neighbours.
voxel_by_voxel = pytest.mark.parametrize(
    "name", [name for name in OF_LABELS if name not in ("dice_cldice", "boundary")]
)
# The boundary loss of a right prediction is negative; see `test_boundary.py`.
bounded_loss = pytest.mark.parametrize("name", [name for name in OF_LABELS if name != "boundary"])


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sample(kind, shape=(2, 1, 6, 5, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor(VALUES[kind])
    return values[torch.randint(len(values), shape, generator=generator)]


def perfect(kind, labels, size=30.0):
    """Logits that say exactly what the labels say."""
    scheme = SCHEMES[kind]
    if kind == "regions":
        inside = torch.from_numpy(scheme.region_table())[labels[:, 0]].movedim(-1, 1)
        return size * (2 * inside - 1)
    index = labels[:, 0] if scheme is None else torch.from_numpy(scheme.channel_table())[labels[:, 0]]
    return size * torch.nn.functional.one_hot(index.clamp_min(0), 3).movedim(-1, 1).float()


@everywhere
@bounded_loss
def test_perfect_prediction_costs_nothing_and_any_other_more(name, kind):
    labels = sample(kind)
    loss = build_loss(name, SCHEMES[kind])
    right = perfect(kind, labels)
    assert 0 <= loss(right, labels).item() < 1e-4
    assert loss(-right, labels) > loss(torch.zeros_like(right), labels) > 0.05


@pytest.mark.parametrize("kind", ["plain", "regions"])
@every_loss
def test_ignored_voxels_give_no_gradient_and_no_count(name, kind):
    labels = sample(kind)
    hidden = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    labels[hidden] = 9
    loss = build_loss(name, SCHEMES[kind])
    logits = torch.randn(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    value = loss(logits, labels)
    value.backward()
    where = hidden.expand_as(logits)
    assert (logits.grad[where] == 0).all()
    assert (logits.grad[~where] != 0).any()
    changed = torch.where(where, torch.full_like(logits, 40.0), logits.detach())
    torch.testing.assert_close(loss(changed, labels), value.detach())


@pytest.mark.parametrize("kind", ["plain", "regions"])
@voxel_by_voxel
def test_the_loss_beside_ignored_voxels_is_that_of_the_others_in_a_row(name, kind):
    labels = sample(kind)
    hidden = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    labels[hidden] = 9
    loss = build_loss(name, SCHEMES[kind])
    logits = torch.randn(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(2))
    seen = ~hidden[:, 0]
    rest = logits.movedim(1, -1)[seen].T[None]
    torch.testing.assert_close(loss(rest, labels[:, 0][seen][None, None]), loss(logits, labels))


@pytest.mark.parametrize("kind", ["plain", "regions"])
@every_loss
def test_a_batch_with_nothing_but_ignored_voxels_is_finite(name, kind):
    logits = torch.randn(1, 3, 4, 4).requires_grad_()
    value = build_loss(name, SCHEMES[kind])(logits, torch.full((1, 1, 4, 4), 9))
    value.backward()
    assert torch.isfinite(value)
    assert (logits.grad == 0).all()


@everywhere
@every_loss
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_give_finite_gradients(name, kind, size):
    labels = sample(kind)
    logits = (perfect(kind, labels, 1.0) * size).requires_grad_()
    value = build_loss(name, SCHEMES[kind])(logits, labels)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_of_a_certain_voxel_has_a_finite_gradient(gamma):
    logits = torch.tensor([[[200.0], [-200.0]]], requires_grad=True)
    build_loss("focal", gamma=gamma)(logits, torch.zeros(1, 1, 1)).backward()
    assert torch.isfinite(logits.grad).all()


@everywhere
@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(name, kind, dtype):
    labels = sample(kind)
    logits = torch.randn(2, 3, 6, 5, 4).to(dtype)
    loss = build_loss(name, SCHEMES[kind])
    value = loss(logits, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), labels))


@everywhere
@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32])
def test_labels_of_any_integer_type_mean_the_same(name, kind, dtype):
    labels = sample(kind)
    logits = torch.randn(2, 3, 6, 5, 4)
    loss = build_loss(name, SCHEMES[kind])
    assert torch.equal(loss(logits, labels.to(dtype)), loss(logits, labels))


@everywhere
@voxel_by_voxel
def test_two_and_three_dimensions_agree(name, kind):
    labels = sample(kind)
    logits = torch.randn(2, 3, 6, 5, 4)
    loss = build_loss(name, SCHEMES[kind])
    torch.testing.assert_close(loss(logits, labels), loss(logits.flatten(3), labels.flatten(3)))


@everywhere
@every_loss
def test_memory_layouts_agree(name, kind):
    labels = sample(kind)
    logits = torch.randn(2, 3, 6, 5, 4)
    loss = build_loss(name, SCHEMES[kind])
    last = loss(logits.contiguous(memory_format=torch.channels_last_3d), labels)
    torch.testing.assert_close(last, loss(logits, labels))


@pytest.mark.parametrize("batch", [True, False])
@everywhere
def test_an_absent_label_does_not_explode(kind, batch):
    loss = build_loss("dice", SCHEMES[kind], batch=batch)
    labels = torch.zeros(2, 1, 8, 8, dtype=torch.long)
    nearly = (perfect(kind, labels, 8.0)).requires_grad_()
    value = loss(nearly, labels)
    value.backward()
    assert value < 0.2
    assert nearly.grad.abs().max() < 0.01
    some = torch.zeros_like(nearly).requires_grad_()
    loss(some, labels).backward()
    foreground = some.grad if kind == "regions" else some.grad[:, 1:]
    assert (foreground > 0).all()  # descending lowers what is predicted and not there


@everywhere
@every_loss
def test_gradients_are_those_of_finite_differences(name, kind):
    labels = sample(kind, (2, 1, 2, 3))
    if kind != "indices":
        labels[1, 0, 0, 1] = 9
    loss = build_loss(name, SCHEMES[kind])
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits,))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tversky", {"gamma": 4 / 3, "background": True}),
        ("cross_entropy", {"label_smoothing": 0.2, "weights": [1.0, 2.0, 0.5]}),
        ("topk_cross_entropy", {"percent": 50, "label_smoothing": 0.1}),
        ("generalized_dice", {"batch": False, "background": False}),
        ("boundary", {"largest": 1.5}),
    ],
)
@everywhere
def test_options_keep_gradients_right(name, options, kind):
    labels = sample(kind, (2, 1, 2, 3))
    loss = build_loss(name, SCHEMES[kind], **options)
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits,))


@every_loss
def test_the_order_of_the_labels_does_not_matter(name):
    labels = sample("plain")
    logits = torch.randn(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(5))
    turned = LabelScheme.from_mapping({"tumour": 2, "liver": 6}, ignore=9)
    torch.testing.assert_close(
        build_loss(name, turned)(logits[:, [0, 2, 1]], labels), build_loss(name, PLAIN)(logits, labels)
    )


@everywhere
@every_loss
def test_autocast_does_not_change_the_loss(name, kind):
    labels = sample(kind)
    logits = torch.randn(2, 3, 6, 5, 4).bfloat16()
    loss = build_loss(name, SCHEMES[kind])
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(logits, labels)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(logits, labels))


@everywhere
@bounded_loss
def test_a_tuple_of_logits_is_weighted_by_halves(name, kind):
    labels = sample(kind, (2, 1, 8, 6, 5))
    loss = build_loss(name, SCHEMES[kind])
    outputs = (torch.randn(2, 3, 8, 6, 5), torch.randn(2, 3, 4, 3, 3), torch.randn(2, 3, 2, 2, 2))
    each = [loss(out, resize_labels(labels, out.shape[2:])) for out in outputs]
    torch.testing.assert_close(loss(outputs, labels), (4 * each[0] + 2 * each[1] + each[2]) / 7)
    torch.testing.assert_close(loss(outputs[:1], labels), each[0])


def test_labels_are_taken_at_the_centre_of_the_coarser_voxels():
    labels = torch.arange(6)[None, None]
    assert resize_labels(labels, (3,)).tolist() == [[[1, 3, 5]]]
    assert resize_labels(labels, (2,)).tolist() == [[[1, 4]]]
    assert resize_labels(labels, (6,)) is labels
    nearest = torch.nn.functional.interpolate(torch.rand(1, 1, 45, 17), size=(23, 9), mode="nearest-exact")
    image = torch.rand(1, 1, 45, 17)
    nearest = torch.nn.functional.interpolate(image, size=(23, 9), mode="nearest-exact")
    assert torch.equal(resize_labels(image, (23, 9)), nearest)


def test_loss_has_no_state_of_its_own_and_moves_as_a_module():
    loss = build_loss("dice_ce", PLAIN, weights=[1.0, 2.0, 3.0])
    assert not loss.state_dict()
    assert {buffer.shape for buffer in loss.buffers()} == {torch.Size([10]), torch.Size([3])}
