from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import medseg
from medseg.inference import load_model
from medseg.labels import LabelScheme
from medseg.studies import PredictOptions, predict_studies
from medseg.studies.measurements import measure, measurements_csv
from medseg.volume import Metadata, Volume

SCHEME = LabelScheme.from_mapping({"lung": 1, "tumour": 2})
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def _ct(shape: tuple[int, ...], value: float) -> Volume:
    return Volume(np.full((1, *shape), value, np.float32), AFFINE, channels=1, metadata=Metadata(modality="CT"))


def test_two_tumours_are_counted_weighed_and_the_larger_one_measured() -> None:
    array = np.zeros((20, 20, 6), dtype=np.uint8)
    array[5:15, 8:12, 1:3] = 2
    array[1, 1, 5] = 2
    image = _ct(array.shape, 40.0)
    tumour = measure(Volume(array, AFFINE), SCHEME, image)[1]
    assert (tumour.voxels, tumour.components) == (81, 2)
    assert tumour.volume_ml == pytest.approx(81 * 0.02)
    # 10 x 4 voxels of 2 mm: corners of the outline are the middles of edges, see `axial_diameters`.
    assert (tumour.long_axis_mm, tumour.short_axis_mm) == pytest.approx((20.88, 8.35), abs=0.01)
    assert (tumour.mean, tumour.sd, tumour.unit) == (40.0, 0.0, "HU")


def test_a_label_that_was_not_found_has_no_volume_and_no_brightness() -> None:
    lung = measure(Volume(np.zeros((4, 4, 4), np.uint8), AFFINE), SCHEME, _ct((4, 4, 4), 0.0))[0]
    assert (lung.voxels, lung.volume_ml, lung.components, lung.mean, lung.long_axis_mm) == (0, 0.0, 0, None, None)


def test_a_photograph_has_voxels_and_no_millimetres() -> None:
    array = np.zeros((8, 8), np.uint8)
    array[2:5, 2:4] = 1
    mask = Volume(array, np.eye(4), spacing_known=False)
    image = Volume(np.ones((3, 8, 8), np.uint8), np.eye(4), channels=3, spacing_known=False)
    lung = measure(mask, SCHEME, image)[0]
    assert (lung.voxels, lung.volume_ml, lung.long_axis_mm, lung.unit) == (6, None, None, "")


def test_a_region_counts_all_its_values() -> None:
    scheme = LabelScheme.from_mapping({"WT": [1, 2, 4], "ET": [4]})
    array = np.array([1, 2, 4, 0], np.uint8).reshape(4, 1, 1)
    image = Volume(np.zeros((4, 1, 1), np.float32), np.eye(4))
    assert [m.voxels for m in measure(Volume(array, np.eye(4)), scheme, image)] == [3, 1]


def test_the_table_has_a_line_per_case_and_label_sorted_by_case() -> None:
    array = np.zeros((4, 4, 4), np.uint8)
    array[0, 0, 0] = 1
    rows = [asdict(m) for m in measure(Volume(array, AFFINE), SCHEME, _ct((4, 4, 4), -700.0))]
    lines = measurements_csv([("zoe", "done", rows), ("ann", "needs_review", rows[:1])]).splitlines()
    assert (
        lines[0]
        == "case,label,voxels,volume_ml,components,long_axis_mm,short_axis_mm,mean,sd,unit,predicted_dice,state"
    )
    assert lines[1].startswith("ann,lung,1,0.02,1,") and lines[1].endswith(",-700.0,0.0,HU,,needs_review")
    assert [line.split(",")[0] for line in lines[1:]] == ["ann", "zoe", "zoe"]
    assert lines[3] == "zoe,tumour,0,0.0,0,,,,,HU,,done"


def test_ledgers_that_call_components_lesions_are_read_too() -> None:
    array = np.zeros((6, 6, 6), np.uint8)
    array[0, 0, 0] = array[3, 3, 3] = 1
    rows = [asdict(m) for m in measure(Volume(array, AFFINE), SCHEME, _ct((6, 6, 6), -700.0))]
    old = [{("lesions" if key == "components" else key): value for key, value in row.items()} for row in rows]
    assert [row["lesions"] for row in old] == [2, 0]
    assert measurements_csv([("ann", "done", old)]) == measurements_csv([("ann", "done", rows)])


def test_a_run_leaves_a_table_and_a_picture_of_every_mask(unet_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("ann", "ben"):
        volume = Volume(rng.normal(size=(9, 8, 7)).astype(np.float32), AFFINE)
        medseg.write(volume, tmp_path / "in" / f"{name}.nii.gz")
    result = predict_studies(unet_bundle, [tmp_path / "in"], tmp_path / "out", PredictOptions(device="cpu"))
    assert not result.failed
    lines = (tmp_path / "out" / "measurements.csv").read_text().splitlines()
    masks = {name: medseg.read(tmp_path / "out" / f"{name}.nii.gz") for name in ("ann", "ben")}
    scheme = load_model(unet_bundle, "cpu").scheme
    assert len(lines) == 1 + 2 * len(scheme.names)
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert first["case"] == "ann" and int(first["voxels"]) == scheme.mask(masks["ann"].array, first["label"]).sum()
    assert sorted(p.name for p in (tmp_path / "out" / "previews").iterdir()) == ["ann.png", "ben.png"]
    without = PredictOptions(device="cpu", preview=False)
    predict_studies(unet_bundle, [tmp_path / "in"], tmp_path / "bare", without)
    assert not (tmp_path / "bare" / "previews").exists()
