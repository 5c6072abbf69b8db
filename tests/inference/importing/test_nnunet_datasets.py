"""Models of nnU-Net v2 that are more than one folder, --compatible, and post-processing.

The masks are those of nnunetv2 2.8.1 itself, written by tests/fixtures/make_nnunet_datasets.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_nnunet import FIXTURES, checkpoint, edited, folder_of, image_of
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.disk.archive import unpack
from medseg.errors import CheckpointError, ConfigError
from medseg.inference.half_steps import half_weights
from medseg.inference.importing.importer import import_model
from medseg.studies import PredictOptions

DATASETS = Path(__file__).parents[2] / "fixtures" / "nnunet_datasets"
MASKS = {"cascade": "mask.nii.gz", "two": "mask.nii.gz", "rgb": "mask.png"}


def source_of(kind: str) -> Path:
    (found,) = (DATASETS / kind).glob("case_0000*")
    return found


def dataset_of(kind: str, target: Path) -> Path:
    target.mkdir()
    unpack(DATASETS / kind / "model.zip", target)
    (folder,) = target.iterdir()
    return folder


@pytest.mark.parametrize("kind", ["plain", "thick", "flat", "transposed", "regions", "small"])
def test_compatible_masks_are_nnunets_to_the_voxel(kind: str, tmp_path: Path) -> None:
    bundle = import_model(FIXTURES / kind / "model.zip", tmp_path / "bundle")
    found = medseg.load_model(bundle, "cpu", compatible=True).predict(image_of(kind))
    assert np.array_equal(found.array, medseg.read(FIXTURES / kind / "mask.nii.gz").array)


@pytest.mark.parametrize("kind", MASKS)
def test_cascades_ensembles_and_pictures_are_nnunets_to_the_voxel(kind: str, tmp_path: Path) -> None:
    bundle = import_model(DATASETS / kind / "model.zip", tmp_path / "bundle")
    found = medseg.load_model(bundle, "cpu", compatible=True).predict(medseg.read(source_of(kind)))
    assert np.array_equal(found.array, medseg.read(DATASETS / kind / MASKS[kind]).array)


def test_the_command_repeats_nnunets_steps_and_the_ledger_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    folder = dataset_of("cascade", tmp_path / "results")
    out = tmp_path / "masks"
    arguments = ["predict", str(folder), str(source_of("cascade")), "-o", str(out), "--settle", "0"]
    result = CliRunner().invoke(app, [*arguments, "--compatible"])
    assert result.exit_code == 0, result.output
    (mask,) = out.glob("*.nii.gz")
    assert np.array_equal(medseg.read(mask).array, medseg.read(DATASETS / "cascade" / "mask.nii.gz").array)
    row = json.loads((out / "ledger.jsonl").read_text().splitlines()[-1])
    assert row["options"]["compatible"] is True and row["network_engine"] == "eager"
    # The same case without the option is another mask.
    assert CliRunner().invoke(app, [*arguments]).exit_code == 0
    assert len((out / "ledger.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "more",
    [{"fast": True}, {"network_engine": "winograd"}, {"crf": True}, {"estimate_quality": True}],
)
def test_what_contradicts_compatible_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--compatible"):
        PredictOptions(compatible=True, **more)


def test_only_networks_of_nnunet_are_compatible_with_it(tmp_path: Path) -> None:
    bundle = import_model(FIXTURES / "small" / "model.zip", tmp_path / "bundle")
    content = json.loads((bundle / "model.json").read_text())
    content["source"]["kind"] = "medseg"
    (bundle / "model.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="is not a network of nnU-Net"):
        medseg.load_model(bundle, "cpu", compatible=True)


def test_compatible_obeys_the_checkpoint_where_sides_forbid_mirroring(tmp_path: Path) -> None:
    folder = folder_of("small", tmp_path / "model")
    edited("dataset.json", "labels", value={"background": 0, "kidney_left": 1, "kidney_right": 2})(folder)
    checkpoint(inference_allowed_mirroring_axes=(0, 2))(folder)
    bundle = import_model(folder, tmp_path / "bundle")
    usual, compatible = (medseg.load_model(bundle, "cpu", compatible=each) for each in (False, True))
    assert (usual.mirror_axes(), compatible.mirror_axes()) == ((0,), (0, 2))
    assert [each.kind for each in compatible.predict(image_of("small")).findings] == []


def test_weights_that_half_precision_makes_zero_count_as_the_smallest() -> None:
    weights = half_weights((8, 24, 16)).numpy()
    assert weights.max() == 10 and weights[4, 12, 8] == 10
    smallest = weights[weights > 0].min()
    assert (weights[0, 0, 0], weights[-1, -1, -1]) == (smallest, weights[-1, -1, -1]) and weights.min() > 0


def test_a_stage_finds_the_one_before_it_beside_it(tmp_path: Path) -> None:
    folder = dataset_of("cascade", tmp_path / "results")
    second = folder / "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"
    model = medseg.load_model(import_model(second, tmp_path / "bundle"), "cpu")
    assert [name for name, _ in model.members] == ["3d_lowres", "3d_cascade_fullres"]
    shutil.rmtree(folder / "nnUNetTrainer__nnUNetPlans__3d_lowres")
    with pytest.raises(CheckpointError, match="needs the model nnUNetTrainer__nnUNetPlans__3d_lowres beside it"):
        import_model(second, tmp_path / "other")


def test_several_models_are_an_ensemble_only_where_nnunet_says_so(tmp_path: Path) -> None:
    folder = dataset_of("two", tmp_path / "results")
    (folder / "inference_information.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds 2 models of nnU-Net .*--ensemble"):
        import_model(folder, tmp_path / "bundle")


def test_models_given_one_by_one_are_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    folder = dataset_of("two", tmp_path / "results")
    one, two = (str(folder / f"nnUNetTrainer__nnUNetPlans__{name}") for name in ("2d", "3d_fullres"))
    arguments = ["predict", one, str(source_of("two")), "-o", str(tmp_path / "masks"), "--ensemble", two]
    result = CliRunner().invoke(app, [*arguments, "--compatible", "--settle", "0"])
    assert result.exit_code == 0, result.output
    (mask,) = (tmp_path / "masks").glob("*.nii.gz")
    assert np.array_equal(medseg.read(mask).array, medseg.read(DATASETS / "two" / "unprocessed.nii.gz").array)
    with pytest.raises(ConfigError, match="--ensemble names the model itself"):
        medseg.load_model(one, "cpu", ensemble=(one,))
    other = import_model(FIXTURES / "regions" / "model.zip", tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"other labels|different images"):
        medseg.load_model(one, "cpu", ensemble=(other,))


def results_of(folder: Path, functions: Any, options: Any, folds: str = "0") -> None:
    results = folder / f"crossval_results_folds_{folds}"
    results.mkdir()
    content = {"postprocessing_fns": functions, "postprocessing_kwargs": options}
    (results / "postprocessing.json").write_text(json.dumps(content))


LARGEST = "remove_all_but_largest_component_from_segmentation"


def test_post_processing_of_the_cross_validation_is_applied(tmp_path: Path) -> None:
    folder = folder_of("small", tmp_path / "model")
    results_of(folder, [LARGEST, LARGEST], [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 1}])
    results_of(folder, ["unknown"], [{}], folds="0_1")
    model = medseg.load_model(import_model(folder, tmp_path / "bundle"), "cpu")
    assert model.info.prediction.keep_largest == (("a", "b"), ("a",))
    assert not np.array_equal(
        model.predict(image_of("small")).array, medseg.read(FIXTURES / "small" / "mask.nii.gz").array
    )


@pytest.mark.parametrize(
    ("functions", "options"),
    [
        (["os.system"], [{"labels_or_regions": 1}]),
        ([LARGEST], [{"labels_or_regions": 7}]),
        ([LARGEST], [{"labels_or_regions": 1, "background_label": 2}]),
        ([LARGEST], [{"labels_or_regions": "a"}]),
        ([LARGEST], []),
        ("a", {}),
        ([LARGEST], [3]),
    ],
)
def test_other_post_processing_is_refused(functions: Any, options: Any, tmp_path: Path) -> None:
    folder = folder_of("small", tmp_path / "model")
    results_of(folder, functions, options)
    with pytest.raises(CheckpointError, match=r"postprocessing\.json"):
        import_model(folder, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["../evil", 3, "x" * 5000, ["3d_lowres"]])
def test_a_stage_that_is_no_name_of_a_configuration_is_refused(name: Any, tmp_path: Path) -> None:
    folder = folder_of("small", tmp_path / "model")
    edited("plans.json", "configurations", "3d_fullres", "previous_stage", value=name)(folder)
    with pytest.raises(CheckpointError) as caught:
        import_model(folder, tmp_path / "bundle")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
