from __future__ import annotations

import subprocess
import sys
from itertools import permutations, product

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, threshold_weights, unet_weights

from medseg.config import PostprocessConfig
from medseg.errors import ConfigError, GeometryError, ReadError
from medseg.geometry import reorient
from medseg.inference import load_model, save_bundle
from medseg.inference.device import resolve_device
from medseg.preparation.plan import ChannelPlan
from medseg.volume import Finding, Metadata, Volume

ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(axes, sides, strict=True))
    for axes in permutations(("LR", "PA", "IS"))
    for sides in product((0, 1), repeat=3)
]


def _volume(shape=(9, 13, 5), spacing=(1.0, 1.0, 1.5), seed=0):
    rng = np.random.default_rng(seed)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20.0, 31.0, 7.0)
    return Volume(rng.normal(size=shape).astype(np.float32), affine)


def test_a_label_map_lies_on_the_images_own_grid_and_keeps_what_is_known(threshold_bundle):
    findings = (Finding("jitter", "positions vary"),)
    volume = Volume(
        np.arange(60.0).reshape(3, 4, 5), np.diag([2.0, -1, 3, 1]), metadata=Metadata(modality="CT"), findings=findings
    )
    labels = load_model(threshold_bundle(value=9), "cpu").predict(volume)
    assert labels.array.dtype == np.uint8
    assert np.array_equal(labels.array, np.where(volume.array - 0.5 > 0, 9, 0))
    assert labels.same_geometry(volume) and labels.metadata == volume.metadata and labels.findings == findings


def test_a_mask_is_post_processed_as_the_bundle_says(tmp_path):
    rules = PostprocessConfig(keep_components={"spot": 1})
    info = make_info(make_plan(spacing_mm=None), "inference_nets:build_threshold", {"spot": 1})
    info = info.model_copy(update={"prediction": info.prediction.model_copy(update={"postprocess": rules})})
    array = np.zeros((6, 7, 8))
    array[1, 2, 3] = array[4, 4, 4:6] = 1.0
    labels = load_model(save_bundle(tmp_path / "model", info, {0: threshold_weights(2, 0.5)}), "cpu").predict(array)
    assert labels.array.sum() == 2 and labels.array[1, 2, 3] == 0


def test_an_array_needs_no_file_and_no_affine_unless_the_model_resamples(threshold_bundle, unet_bundle):
    array = np.zeros((6, 7, 8))
    array[1, 2, 3] = 1.0
    model = load_model(threshold_bundle(), "cpu")
    labels = model.predict(array)
    assert labels.array.sum() == 1 and labels.array[1, 2, 3] == 1 and not labels.spacing_known
    assert np.array_equal(model.predict(array[None], channels=1).array, labels.array)
    assert model.predict(array, affine=np.diag([1.0, 1, 2, 1])).spacing_mm == (1, 1, 2)
    with pytest.raises(GeometryError, match="spacing"):
        load_model(unet_bundle, "cpu").predict(array)


def test_images_that_do_not_fit_the_model_are_refused(threshold_bundle):
    model = load_model(threshold_bundle(), "cpu")
    with pytest.raises(GeometryError, match="2 channel"):
        model.predict(np.zeros((2, 5, 5, 5)), channels=2)
    with pytest.raises(GeometryError, match="2D"):
        model.predict(np.zeros((5, 5)))
    for bad in (np.nan, np.inf):
        array = np.zeros((5, 5, 5), dtype=np.float32)
        array[2, 2, 2] = bad
        with pytest.raises(ReadError, match="NaN"):
            model.predict(array)
    with pytest.raises(ReadError, match="real numbers"):
        model.predict(np.zeros((5, 5, 5), dtype=complex))
    with pytest.raises(GeometryError, match="own affine"):
        model.predict(_volume(), affine=np.eye(4))


def test_all_48_axis_orders_give_the_same_labels(unet_bundle):
    model = load_model(unet_bundle, "cpu")
    volume = _volume()
    expected = model.predict(volume)
    assert set(np.unique(expected.array)) == {0, 1, 7}
    assert len(set(ORIENTATIONS)) == 48
    for orientation in ORIENTATIONS:
        turned = reorient(volume, orientation)
        labels = model.predict(turned)
        assert labels.same_geometry(turned)
        assert np.array_equal(reorient(labels, "RAS").array, expected.array), orientation


def test_left_is_on_the_patients_left_in_every_axis_order(sides_bundle):
    model = load_model(sides_bundle, "cpu")
    assert model.mirror_axes() == (1,)
    array = np.ones((10, 12, 8), dtype=np.float32)
    volume = Volume(array, np.array([[1.0, 0, 0, -4.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    for orientation in ORIENTATIONS:
        labels = model.predict(reorient(volume, orientation))
        index = np.indices(labels.shape).reshape(3, -1)
        x = (labels.affine[:3, :3] @ index + labels.affine[:3, 3:])[0]
        assert np.array_equal(labels.array.ravel() == 1, x < 0), orientation


def test_a_resampled_grid_comes_back_at_the_right_place(threshold_bundle):
    volume = _volume((16, 16, 10), (1.0, 1.0, 2.0))
    array = np.zeros(volume.shape, dtype=np.float32)
    array[4:12, 6:10, 3:6] = 1.0
    labels = load_model(threshold_bundle(spacing_mm=(0.5, 0.5, 0.5)), "cpu").predict(volume.with_array(array))
    assert np.array_equal(labels.array, array)


def test_a_tilted_study_is_segmented_at_the_right_place_in_the_patient(threshold_bundle):
    # 24 slices that slide by 15 degrees along j, a ball of 14 mm in the middle.
    shape, radius = (44, 50, 24), 14.0
    affine = np.array([[0.9, 0, 0, -20], [0, 0.9, 2 * np.tan(np.radians(15)), 31], [0, 0, 2, 7], [0, 0, 0, 1]])
    centre = affine @ [*(np.array(shape) - 1) / 2, 1.0]
    index = np.indices(shape).reshape(3, -1)
    places = affine[:3, :3] @ index + affine[:3, 3:]
    ball = (np.linalg.norm(places - centre[:3, None], axis=0) <= radius).reshape(shape)
    volume = Volume(
        np.where(ball, 60, -1000).astype(np.int16), affine, findings=(Finding("gantry_tilt", "15 degrees"),)
    )
    window = ChannelPlan(kind="window", low=-1000, high=60, mean=-1000.0, std=1060.0)
    for spacing in (None, (1.2, 1.0, 2.0)):
        model = load_model(threshold_bundle(str(spacing), spacing_mm=spacing, normalization=(window,)), "cpu")
        for orientation in ("RAS", "LPS", "SAR", "PIL"):
            turned = reorient(volume, orientation)
            labels = model.predict(turned)
            assert (
                labels.same_geometry(turned) and labels.array.dtype == np.uint8 and labels.findings == volume.findings
            )
            found = reorient(labels, "RAS").array > 0
            assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) >= 0.95
            off = np.linalg.inv(affine[:3, :3]) @ (places[:, found.ravel()].mean(axis=1) - centre[:3])
            assert np.abs(off).max() < 0.5
        logits, grid = model.predict_logits(volume)
        probabilities = model.to_probabilities(logits, grid, volume)
        assert probabilities.shape == shape and probabilities.array.dtype == np.float16
        assert ((probabilities.array[0] > 0.5) != (model.to_labels(logits, grid, volume).array > 0)).mean() < 0.03


def test_folds_are_averaged(tmp_path):
    info = make_info(make_plan(spacing_mm=None), "inference_nets:build_threshold", {"spot": 1})
    folder = save_bundle(tmp_path / "m", info, {0: threshold_weights(2, 0.0), 3: threshold_weights(2, 1.0)})
    model = load_model(folder, "cpu")
    assert len(model.nets) == 2
    image = np.array([0.4, 0.6, 0.9, 0.1]).reshape(1, 1, 4)
    assert model.predict(image).array.ravel().tolist() == [0, 1, 1, 0]
    seen = []
    logits, _ = model.predict_logits(image, progress=lambda *a: seen.append(a))
    torch.testing.assert_close(logits[1].ravel(), torch.tensor([-0.1, 0.1, 0.4, -0.4]))
    assert seen == [(1, 1)]


def test_a_2d_net_segments_a_volume_slice_by_slice(threshold_bundle):
    plan = {"dims": 2, "patch_size": (8, 8), "strides": ((1, 1), (2, 2)), "orientation": "RSA"}
    model = load_model(threshold_bundle(**plan), "cpu")
    volume = _volume()
    assert np.array_equal(model.predict(volume).array, volume.array > 0.5)


def test_a_photograph_is_segmented_in_pixels(threshold_bundle):
    plan = {"dims": 2, "patch_size": (8, 8), "strides": ((1, 1), (2, 2)), "orientation": None, "in_channels": 3}
    scale = ChannelPlan(kind="clip", low=0.0, high=255.0, mean=0.0, std=255.0)
    model = load_model(threshold_bundle(**plan, normalization=(scale,) * 3), "cpu")
    picture = np.zeros((3, 20, 13), dtype=np.uint8)
    picture[0, 5:7, 4] = 200
    labels = model.predict(picture, channels=3)
    assert labels.shape == (20, 13) and labels.array.sum() == 2 and labels.array[5, 4] == 1


def test_regions_are_painted_and_their_probabilities_are_sigmoids(tmp_path):
    labels = {"whole": (1, 2), "core": (2,)}
    info = make_info(make_plan(spacing_mm=None), "inference_nets:build_threshold", labels)
    state = threshold_weights(2, 0.0)
    state["slope"][:] = 1.0
    state["bias"][:] = torch.tensor([0.2, 0.6])
    model = load_model(save_bundle(tmp_path / "m", info, {0: state}), "cpu")
    image = Volume(np.array([0.0, 0.4, 0.8]).reshape(1, 1, 3), np.eye(4))
    assert model.predict(image).array.ravel().tolist() == [0, 1, 2]
    logits, grid = model.predict_logits(image)
    probabilities = model.to_probabilities(logits, grid, image)
    expected = 1 / (1 + np.exp(-np.array([[-0.2, 0.2, 0.6], [-0.6, -0.2, 0.2]])))
    assert probabilities.channels == 2
    assert np.abs(probabilities.array.reshape(2, 3) - expected).max() < 1e-3


def test_mirroring_can_be_turned_off_and_never_crosses_paired_labels(tmp_path, unet_bundle):
    model = load_model(unet_bundle, "cpu")
    assert model.mirror_axes() == model.mirror_axes(True) == (0, 1) and model.mirror_axes(False) == ()
    volume = _volume()
    with_mirror, _ = model.predict_logits(volume)
    without, _ = model.predict_logits(volume, mirror=False)
    assert not torch.allclose(with_mirror, without)
    info = make_info(make_plan(), labels={"left_kidney": 1, "right_kidney": 2})
    paired = load_model(save_bundle(tmp_path / "p", info, {0: unet_weights(info)}), "cpu")
    assert paired.mirror_axes() == (1,)


def test_prediction_is_the_same_with_any_batch_and_every_time(unet_bundle):
    model = load_model(unet_bundle, "cpu")
    volume = _volume((13, 9, 12), (1.0, 1.0, 1.0))
    first = model.predict(volume, batch_size=1).array
    assert np.array_equal(first, model.predict(volume, batch_size=1).array)
    assert np.mean(first != model.predict(volume, batch_size=5).array) < 1e-3


def test_devices_are_resolved():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="use auto, cpu or cuda"):
        resolve_device("tpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_labels(unet_bundle):
    volume = _volume((20, 17, 12))
    on_cpu = load_model(unet_bundle, "cpu").predict(volume).array
    assert np.mean(on_cpu != load_model(unet_bundle, "cuda").predict(volume).array) < 1e-2


def test_predicting_with_our_own_net_never_imports_monai(unet_bundle):
    code = f"""
import sys, numpy as np
from medseg.inference import load_model
import medseg.studies.run
load_model({str(unet_bundle)!r}, "cpu").predict(np.zeros((9, 9, 9), dtype="float32"), affine=np.eye(4))
found = [name for name in ("monai", "torchvision", "matplotlib", "sklearn") if name in sys.modules]
sys.exit(f"imported: {{found}}" if found else 0)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_a_crf_moves_the_border_of_a_2d_mask_to_the_edge_of_the_image(tmp_path):
    # A net that answers from a blurred image; the CRF sees the sharp one.
    plan = make_plan(dims=2, orientation=None, spacing_mm=None, patch_size=(32, 32), strides=((1, 1), (2, 2)))
    info = make_info(plan, "inference_nets:build_blurred", {"spot": 1})
    model = load_model(save_bundle(tmp_path / "blurred", info, {0: {"scale": torch.ones(1)}}))
    image = np.zeros((32, 32), np.float32)
    image[9:22, 9:22] = 1.0
    plain = model.predict(image).array
    sharp = model.predict(image, crf=model.crf_options()).array
    truth = image > 0
    assert np.count_nonzero(sharp != truth) < np.count_nonzero(plain != truth)


def test_a_crf_on_volumes_needs_fitted_options(unet_bundle, tmp_path):
    model = load_model(unet_bundle)
    with pytest.raises(ConfigError, match=r"fitted.*prediction\.crf"):
        model.crf_options()
    text = (unet_bundle / "model.json").read_text()
    (unet_bundle / "model.json").write_text(text.replace('"crf": null', '"crf": {"smooth_mm": 2.0}'))
    assert load_model(unet_bundle).crf_options().smooth_mm == 2.0
