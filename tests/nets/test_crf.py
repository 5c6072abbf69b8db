"""The dense CRF against sums over all pairs written out, against pydensecrf, and on real slices."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

from medseg.errors import ConfigError, DatasetError, GeometryError
from medseg.nets import crf_kernels
from medseg.nets.crf import CrfOptions, dense_crf
from medseg.nets.crf_fit import CrfCase, fit_crf

WHOLE = 1e6  # mm: a window that covers any image


def all_pairs(logits, image, spacing, options, regions=False):
    """Algorithm 1 of the paper in double, with every pair of voxels in one matrix."""
    shape, dims = logits.shape, len(spacing)
    axes = [s * np.arange(n, dtype=float) for n, s in zip(shape[1:], spacing, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dims)
    grey = image.numpy().astype(float).reshape(len(image), -1)
    deviation = grey.std(axis=1, keepdims=True)
    grey = np.divide(grey, options.appearance_intensity * deviation, out=0 * grey, where=deviation > 0)
    distance = ((places[:, None] - places[None]) ** 2).sum(-1)
    difference = ((grey[:, :, None] - grey[:, None]) ** 2).sum(0)
    smooth = np.exp(-distance / (2 * options.smooth_mm**2))
    appearance = np.exp(-distance / (2 * options.appearance_mm**2) - difference / 2)
    if options.window_mm is not None:
        appearance[distance > options.window_mm**2 + 1e-6] = 0
    unary = logits.numpy().astype(float).reshape(shape[0], -1)
    if regions:
        return np.stack(
            [
                np.subtract(*mean_field(np.stack([u, 0 * u]), smooth, appearance, options)).reshape(shape[1:])
                for u in unary
            ]
        )
    return mean_field(unary, smooth, appearance, options).reshape(shape)


def mean_field(unary, smooth, appearance, options):
    potts = 1 - np.eye(len(unary))
    now = unary
    for _ in range(options.iterations):
        q = np.exp(now - now.max(0))
        q /= q.sum(0)
        energy = 0
        for weight, kernel in ((options.smooth_weight, smooth), (options.appearance_weight, appearance)):
            normal = kernel / np.sqrt(kernel.sum(0)[:, None] * kernel.sum(1)[None])
            np.fill_diagonal(normal, 0)
            energy = energy + weight * potts @ (q @ normal)
        now = unary - energy
    return now


def probabilities(logits):
    return torch.softmax(torch.as_tensor(np.asarray(logits)).double(), dim=0)


def sample(shape, classes=3, channels=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(classes, *shape, generator=g), 50 + 9 * torch.randn(channels, *shape, generator=g)


@pytest.mark.parametrize("window", [None, WHOLE], ids=["nodes", "window over the whole image"])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((21, 24), (1.0, 1.0)), ((40, 11), (0.5, 2.0)), ((7, 12, 10), (3.0, 1.0, 0.7)), ((30, 5, 6), (0.6, 4.0, 1.0))],
)
@pytest.mark.parametrize("narrow", [False, True])
def test_every_pair_of_voxels_counts_as_in_the_sums_written_out(shape, spacing, window, narrow):
    logits, image = sample(shape)
    options = CrfOptions(window_mm=window)
    if narrow:
        options = CrfOptions(
            smooth_mm=0.5, appearance_mm=2.5, appearance_weight=6.0, appearance_intensity=0.1, window_mm=window
        )
    found = probabilities(dense_crf(logits, image, spacing, options))
    right = probabilities(all_pairs(logits, image, spacing, options))
    assert (found - right).abs().max() < 1e-5
    assert (right - probabilities(logits)).abs().max() > 0.05


@pytest.mark.parametrize(("shape", "spacing"), [((15, 18), (1.0, 1.5)), ((6, 9, 7), (2.0, 1.0, 1.0))])
@pytest.mark.parametrize("window", [2.1, 4.0])
def test_a_window_leaves_out_the_pairs_beyond_it(shape, spacing, window):
    logits, image = sample(shape, channels=2)
    options = CrfOptions(appearance_intensity=1.0, window_mm=window)
    found = probabilities(dense_crf(logits, image, spacing, options))
    assert (found - probabilities(all_pairs(logits, image, spacing, options))).abs().max() < 1e-5


def test_several_channels_end_at_two_sigmas_unless_told_otherwise():
    logits, image = sample((20, 22), channels=3)
    found = dense_crf(logits, image, (1.0, 1.0), appearance_mm=3.0)
    assert torch.equal(found, dense_crf(logits, image, (1.0, 1.0), appearance_mm=3.0, window_mm=6.0))


def test_regions_are_each_a_field_of_their_own():
    logits, image = sample((12, 14), classes=2)
    options = CrfOptions(iterations=3)
    found = dense_crf(logits, image, (1.0, 1.0), options, regions=True)
    right = torch.from_numpy(all_pairs(logits, image, (1.0, 1.0), options, regions=True))
    assert (torch.sigmoid(found.double()) - torch.sigmoid(right)).abs().max() < 1e-5
    assert torch.allclose(found[1:], dense_crf(logits[1:], image, (1.0, 1.0), options, regions=True), atol=1e-5)


def test_two_voxels_by_hand():
    logits = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    image = torch.tensor([[[0.0, 2.0]]])  # standard deviation 1
    k = math.exp(-(2.0**2) / (2 * 3.0**2) - 2.0**2 / 2)
    weight = 5.0 * k / (1 + k)
    q = 1 / (1 + math.exp(-1.0)), 0.5
    found = dense_crf(
        logits, image, (1.0, 2.0), iterations=1, smooth_weight=0, appearance_weight=5, appearance_mm=3,
        appearance_intensity=1,
    )  # fmt: skip
    gained = found[0] - found[1]
    assert gained[0, 0].item() == pytest.approx(1 + weight * (2 * q[1] - 1), abs=1e-5)
    assert gained[0, 1].item() == pytest.approx(weight * (2 * q[0] - 1), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=3),
    data=st.data(),
    seed=st.integers(0, 99),
    window=st.sampled_from([None, WHOLE]),
)
def test_any_shape_and_spacing_equals_all_pairs_and_turning_axes_turns_the_result(shape, data, seed, window):
    spacing = data.draw(st.lists(st.floats(0.2, 8), min_size=len(shape), max_size=len(shape)))
    logits, image = sample(shape, seed=seed)
    options = CrfOptions(iterations=2, window_mm=window)
    found = dense_crf(logits, image, spacing, options)
    assert found.shape == logits.shape
    right = probabilities(all_pairs(logits, image, spacing, options))
    assert (probabilities(found) - right).abs().max() < 1e-5
    order = data.draw(st.permutations(range(len(shape))))
    axes = [0, *(a + 1 for a in order)]
    turned = dense_crf(logits.permute(axes), image.permute(axes), [spacing[a] for a in order], options)
    assert torch.allclose(turned, found.permute(axes), atol=5e-5)


def test_spacing_is_not_ignored():
    logits, image = sample((12, 12))
    one, other = (dense_crf(logits, image, spacing) for spacing in ((1.0, 1.0), (1.0, 6.0)))
    assert (probabilities(one) - probabilities(other)).abs().max() > 0.05


@pytest.mark.parametrize(
    "options",
    [CrfOptions(smooth_weight=0, appearance_weight=0), CrfOptions(iterations=0)],
    ids=["no weights", "no iterations"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_without_weights_or_iterations_the_input_comes_back(options, dtype):
    logits, image = sample((5, 6, 7))
    found = dense_crf(logits.to(dtype), image, (1.0, 1.0, 2.0), options)
    assert torch.equal(found, logits.to(dtype))
    assert found.data_ptr() != logits.data_ptr()


@pytest.mark.parametrize("window", [None, 4.0])
def test_slabs_and_pieces_give_what_the_whole_gives(window, monkeypatch):
    logits, image = sample((17, 12, 9))
    options = CrfOptions(appearance_mm=2.0, window_mm=window)
    whole = dense_crf(logits, image, (1.0, 1.0, 1.0), options)
    monkeypatch.setattr(crf_kernels, "SLAB_VOXELS", 250)
    monkeypatch.setattr(crf_kernels, "OFFSETS", 7)
    assert torch.allclose(dense_crf(logits, image, (1.0, 1.0, 1.0), options), whole, atol=2e-5)


def test_groups_of_intensities_far_apart_cost_no_nodes_between_them():
    image = torch.tensor([0.0, 0.3, 5000.0]).expand(1, 6, 3)
    assert len(crf_kernels.Appearance(image, (1.0, 1.0), 2.0).nodes) < 40


def test_gain_and_offset_of_the_image_change_nothing():
    logits, image = sample((14, 15))
    found = dense_crf(logits, image, (1.0, 1.0))
    assert torch.allclose(dense_crf(logits, 40 * image - 1000, (1.0, 1.0)), found, atol=1e-3)


def test_a_batch_is_its_samples_one_by_one():
    (one, first), (two, second) = sample((8, 9)), sample((8, 9), seed=1)
    both = dense_crf(torch.stack([one, two]), torch.stack([first, second]), (1.0, 2.0))
    assert torch.equal(both[0], dense_crf(one, first, (1.0, 2.0)))
    assert torch.equal(both[1], dense_crf(two, second, (1.0, 2.0)))


def test_an_image_without_contrast_only_smooths():
    logits, _ = sample((10, 10))
    flat = torch.full((1, 10, 10), 0.1)
    options = CrfOptions(iterations=2)
    right = probabilities(all_pairs(logits, 0 * flat, (1.0, 1.0), options))
    assert (probabilities(dense_crf(logits, flat, (1.0, 1.0), options)) - right).abs().max() < 1e-5


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0)])
def test_nothing_stays_nothing_and_a_single_class_stays_alone(sizes):
    assert dense_crf(torch.zeros(2, *sizes), torch.zeros(1, *sizes), (1.0, 1.0)).shape == (2, *sizes)
    alone = torch.randn(1, 4, 4)
    assert torch.equal(dense_crf(alone, alone, (1.0, 1.0)), alone)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iterations": -1}, "crf.iterations is -1; expected a whole number >= 0"),
        ({"iterations": 2.5}, "crf.iterations is 2.5"),
        ({"smooth_mm": 0.0}, "crf.smooth_mm is 0.0; expected a finite number > 0"),
        ({"appearance_weight": -1.0}, "crf.appearance_weight is -1.0"),
        ({"appearance_intensity": float("nan")}, "crf.appearance_intensity is nan"),
        ({"window_mm": 0}, "crf.window_mm is 0"),
        ({"smooth_mm": "3"}, "crf.smooth_mm is '3'"),
        ({"sigma": 1}, "the CRF has no option 'sigma'; it takes iterations, smooth_weight"),
    ],
)
def test_impossible_options_are_named(change, words):
    logits, image = sample((4, 4))
    with pytest.raises(ConfigError, match=words.replace("(", r"\(").replace("'", ".")):
        dense_crf(logits, image, (1.0, 1.0), **change)


@pytest.mark.parametrize(
    ("logits", "image", "spacing", "words"),
    [
        ((2, 4, 4), (1, 4, 5), (1, 1), "not on one grid"),
        ((2, 4, 4), (1, 4, 4), (1, 1, 1), "do not fit 3 spacings"),
        ((2, 4, 4), (1, 4, 4), (1, 0), "spacing_mm is"),
        ((2, 4, 4), (1, 4, 4), (1,), "spacing_mm is"),
        ((2, 2, 4, 4), (1, 1, 4, 4), (1, 1), "not on one grid"),
        ((2, 4, 4), (0, 4, 4), (1, 1), "not on one grid"),
    ],
)
def test_what_does_not_fit_together_is_refused(logits, image, spacing, words):
    with pytest.raises(GeometryError, match=words):
        dense_crf(torch.zeros(logits), torch.zeros(image), spacing)


def test_an_image_with_nan_is_refused():
    with pytest.raises(GeometryError, match="NaN"):
        dense_crf(torch.zeros(2, 3, 3), torch.full((1, 3, 3), torch.nan), (1.0, 1.0))


# How much it gains: coarse masks against the edges of the image.


def coarse_logits(mask):
    """Every eighth pixel of a mask (nearest, as masks are made smaller), interpolated back: as from output stride 8."""
    small = F.interpolate(mask[None, None].float(), scale_factor=1 / 8, mode="nearest-exact")
    p = F.interpolate(small, size=mask.shape, mode="bilinear", align_corners=False)[0, 0].clamp(0.02, 0.98)
    half = torch.log(p / (1 - p)) / 2
    return torch.stack([-half, half])


def band_dice(found, mask, width=3):
    inside = mask.numpy()
    depth = ndimage.distance_transform_edt(inside) + ndimage.distance_transform_edt(~inside)
    a, b = found.numpy()[depth <= width], inside[depth <= width]
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def blobs(seed, n=160):
    """Blobs of even brightness, blurred, on a drifting, grainy ground."""
    rng = np.random.default_rng(seed)

    def grain(sigma):
        field = ndimage.gaussian_filter(rng.standard_normal((n, n)), sigma, mode="wrap")
        return field / field.std()

    inside = grain(n / 20) > 0.5
    image = ndimage.gaussian_filter(inside * rng.uniform(0.6, 1.2), 0.8)
    image += 0.1 * grain(n / 6) + 0.08 * grain(1.5) + 0.12 * grain(0)
    return torch.from_numpy(image).float()[None], torch.from_numpy(inside)


def test_coarse_phantoms_gain_at_the_boundary():
    gains = []
    for seed in range(5):
        image, mask = blobs(seed)
        logits = coarse_logits(mask)
        sharp = dense_crf(logits, image, (1.0, 1.0)).argmax(0).bool()
        gains.append(band_dice(sharp, mask) - band_dice(logits.argmax(0).bool(), mask))
    assert min(gains) > 0.05


@pytest.mark.slow
def test_coarse_lungs_gain_at_the_boundary(real_data):
    gains = []
    for path in sorted((real_data / "lung2d_lungsegdb" / "images").glob("*.png")):
        image = torch.from_numpy(np.array(Image.open(path).convert("L"))).float()[None]
        mask = np.array(Image.open(real_data / "lung2d_lungsegdb" / "masks" / path.name).convert("L")) > 127
        logits = coarse_logits(torch.from_numpy(mask))
        sharp = dense_crf(logits, image, (1.0, 1.0)).argmax(0).bool()
        before, after = (band_dice(m, torch.from_numpy(mask)) for m in (logits.argmax(0).bool(), sharp))
        gains.append(after - before)
    assert len(gains) == 12
    assert np.mean(gains) > 0.05
    assert min(gains) > 0


def test_coarse_slices_of_the_aorta_gain_at_the_boundary(real_data):
    folder = real_data / "vessel3d_ct_aorta"
    scan, inside = (nib.load(folder / f"{name}.nii.gz") for name in ("ct_cropped", "aorta"))
    grey, aorta = np.clip(scan.get_fdata(dtype=np.float32), -200, 500), np.asarray(inside.dataobj) > 0
    gains = []
    for k in np.argsort(-aorta.sum((0, 1)), kind="stable")[:40:4]:
        image = torch.from_numpy(np.ascontiguousarray(grey[:120, :120, k]))[None]
        mask = torch.from_numpy(np.ascontiguousarray(aorta[:120, :120, k]))
        logits = coarse_logits(mask)
        sharp = dense_crf(logits, image, [float(s) for s in scan.header.get_zooms()[:2]])
        before, after = (band_dice(z.argmax(0).bool(), mask) for z in (logits, sharp))
        gains.append(after - before)
    assert len(gains) == 10
    assert np.mean(gains) > 0.05
    assert min(gains) > 0


def test_labels_agree_with_the_authors_code():
    """The lattice of pydensecrf is an approximation, and it counts a voxel's own message; labels hardly differ."""
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed", exc_type=ImportError)
    image, mask = blobs(7)
    logits = coarse_logits(mask)
    options = CrfOptions(smooth_mm=1.5, appearance_weight=5.0)
    sizes = image.shape[1:]
    field = densecrf.DenseCRF(image.numel(), 2)
    field.setUnaryEnergy(np.ascontiguousarray(-logits.flatten(1).numpy()))
    axes = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in sizes), indexing="ij")
    places = np.stack([a.ravel() for a in axes])
    grey = image.numpy().reshape(1, -1) / (image.numpy().std() * options.appearance_intensity)
    field.addPairwiseEnergy(places / options.smooth_mm, compat=options.smooth_weight)
    near_and_alike = np.concatenate([places / options.appearance_mm, grey]).astype(np.float32)
    field.addPairwiseEnergy(near_and_alike, compat=options.appearance_weight)
    theirs = np.argmax(field.inference(options.iterations), axis=0).reshape(sizes)
    ours = dense_crf(logits, image, (1.0, 1.0), options).argmax(0).numpy()
    assert (theirs == ours).mean() > 0.995


# Fitting: used only where it gains.


def fitted(seed, helps):
    image, mask = blobs(seed, 96)
    if not helps:
        image = torch.randn(1, 96, 96, generator=torch.Generator().manual_seed(seed))
    return CrfCase(coarse_logits(mask), image, mask.long(), (1.0, 1.0))


def test_the_candidate_that_gains_most_is_kept_with_its_gain():
    cases = [fitted(seed, True) for seed in (1, 2)]
    weak, strong = CrfOptions(appearance_weight=0.2), CrfOptions()
    best, gain = fit_crf(cases, [weak, strong])
    assert best == strong
    before = np.mean([case.dice(case.logits) for case in cases])
    after = np.mean([case.dice(dense_crf(case.logits, case.image, (1.0, 1.0), strong)) for case in cases])
    assert gain == pytest.approx(after - before)
    assert gain > 0.02


def test_where_nothing_gains_there_is_no_crf():
    perfect = [CrfCase(20 * c.logits.sign(), c.image, c.logits.argmax(0), (1.0, 1.0)) for c in [fitted(3, False)]]
    assert fit_crf(perfect, [CrfOptions(), CrfOptions(smooth_weight=30.0)]) == (None, 0.0)


def test_dice_of_a_case_by_hand():
    logits = torch.tensor([[[0.0, 0, 0, 0]], [[1.0, 1, -1, 1]], [[-1.0, 2, -1, -1]]])  # labels 1 2 0 1
    image = torch.zeros(1, 1, 4)
    assert CrfCase(logits, image, torch.tensor([[1, 2, 1, -1]]), (1.0, 1.0)).dice(logits) == (2 / 3 + 1) / 2
    assert CrfCase(logits, image, torch.tensor([[1, 1, 0, 1]]), (1.0, 1.0)).dice(logits) == 0.8
    assert math.isnan(CrfCase(logits, image, torch.tensor([[0, 0, 0, 0]]), (1.0, 1.0)).dice(logits))
    regions = torch.tensor([[[False, False, False, False]], [[True, True, False, True]], [[True, True, False, False]]])
    assert CrfCase(logits, image, regions, (1.0, 1.0)).dice(logits) == (1 + 2 / 3) / 2


def test_fitting_needs_candidates_labels_and_one_grid():
    case = fitted(1, True)
    with pytest.raises(ConfigError, match="no candidates"):
        fit_crf([case], [])
    empty = CrfCase(case.logits, case.image, torch.zeros(96, 96), (1.0, 1.0))
    with pytest.raises(DatasetError, match="contain no label"):
        fit_crf([empty], [CrfOptions()])
    with pytest.raises(GeometryError, match="do not fit logits"):
        CrfCase(case.logits, case.image, torch.zeros(95, 96), (1.0, 1.0))


@pytest.mark.parametrize(
    "option", [{"iterations": 10**9}, {"smooth_mm": 1e19}, {"appearance_weight": 1e300}, {"appearance_intensity": 1e-9}]
)
def test_options_that_would_take_for_ever_are_refused(option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        CrfOptions(**option)


def test_a_window_of_more_voxels_than_can_be_summed_is_refused_where_the_image_is_so_large():
    image = torch.zeros(2, 400, 400)
    options = CrfOptions(iterations=1, smooth_weight=0.0, window_mm=1e6)
    with pytest.raises(ConfigError, match=r"smaller crf\.window_mm"):
        dense_crf(torch.zeros(2, 400, 400), image, (1.0, 1.0), options)
