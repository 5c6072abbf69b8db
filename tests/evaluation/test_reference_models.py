"""What stands beside the model: tasks, baseline, second observer, subgroups, memory."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scenes import AFFINE, SHAPE, box, folders, save

from medseg.evaluation import evaluate
from medseg.evaluation.columns import record_of
from medseg.evaluation.pairs import find_pairs
from medseg.evaluation.scoring import Scoring
from medseg.evaluation.workers import case_bytes, score_all
from medseg.metrics.score import ScoreOptions

LENGTHS = {f"c{n}": 6 + n % 4 for n in range(8)}


def test_a_second_observer_is_scored_like_a_model_and_compared(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, LENGTHS)
    for case in LENGTHS:
        save(tmp_path / "second" / f"{case}.nii.gz", box(10))
    result = evaluate(pred, ref, second_reference=tmp_path / "second", out=tmp_path / "out")
    other = result.summary["others"]["second reference"]
    assert other["labels"]["1"]["dice"]["mean"] == 1.0
    own = result.summary["labels"]["1"]["dice"]["mean"]
    difference = other["model_minus"]["1"]["dice"]
    assert difference["difference"] == pytest.approx(own - 1.0) and difference["p_permutation"] == 2 / 256
    assert ("c0", "1", "second reference:dice", 1.0) in [(r.case, r.label, r.metric, r.value) for r in result.cases]
    assert "1, second reference" in result.text()
    assert "1, second reference" in (tmp_path / "out" / "report.html").read_text()


def test_quartiles_and_worst_cases_by_hand(tmp_path: Path) -> None:
    result = evaluate(*folders(tmp_path, {"a": 2, "b": 4, "c": 6, "d": 8, "e": 10}), metrics=("sensitivity",))
    found = result.summary["labels"]["1"]["sensitivity"]
    assert [found[k] for k in ("q1", "median", "q3")] == pytest.approx([0.4, 0.6, 0.8])
    assert result.summary["notable"]["1"]["sensitivity"]["worst"][0] == {"case": "a", "value": 0.2}


def test_columns_of_the_csv_make_subgroups(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {f"c{n:02d}": 5 + n % 5 for n in range(14)})
    rows = [f"c{n:02d},p{n // 2},{'ge' if n % 2 else 'siemens'},{40 + n},note {n}" for n in range(14)]
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(["case,group,scanner,age,comment", *rows]) + "\n")
    result = evaluate(pred, ref, cases=table)
    found = result.summary["subgroups"]
    assert list(found) == ["scanner", "age"] and list(found["scanner"]) == ["ge", "siemens"]
    assert list(found["age"]) == ["age <= 46.5", "age > 46.5"]
    assert (found["scanner"]["ge"]["n_cases"], found["scanner"]["ge"]["n_patients"]) == (7, 7)
    assert [f.kind for f in result.findings] == ["subgroups_left_out"]
    assert result.summary["n_patients"] == 7


def test_a_task_brings_metrics_tables_and_findings_without_images(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 8})
    result = evaluate(pred, ref, task="tumor", labels={"tumor": 1}, out=tmp_path / "out")
    assert {"lesion_f1", "long_axis_difference_mm"} <= set(result.summary["labels"]["tumor"])
    with (tmp_path / "out" / "lesions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(r["case"], r["lesion"]) for r in rows} == {("a", "P1"), ("a", "R1")}
    assert result.summary["task"] == "tumor" and result.summary["leading"]
    assert any("no --images" in f.message for f in result.findings)


def test_the_lungs_baseline_stands_beside_the_model(tmp_path: Path) -> None:
    ref = np.zeros((40, 40, 20), np.uint8)
    ref[6:16, 10:30, 4:16] = ref[24:34, 10:30, 4:16] = 1
    image = np.where(ref > 0, -850, 40).astype(np.int16)
    image[:2], image[-2:] = -1000, -1000
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    pred = ref.copy()
    pred[6:16, 10:14] = 0
    for folder, array in (("ref", ref), ("pred", pred), ("img", image)):
        save(tmp_path / folder / "a.nii.gz", array, affine)
    result = evaluate(tmp_path / "pred", tmp_path / "ref", task="lung", images=tmp_path / "img")
    baseline = result.summary["others"]["baseline"]
    assert baseline["labels"]["lung"]["dice"]["mean"] > 0.99 > result.summary["labels"]["lung"]["dice"]["mean"]
    assert baseline["model_minus"]["lung"]["dice"]["difference"] < 0


def test_probabilities_make_a_froc_curve(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10})
    np.savez(tmp_path / "pred" / "a.npz", probabilities=0.9 * box(10)[None].astype(np.float16))
    result = evaluate(pred, ref, task="tumor", labels={"tumor": 1}, probabilities=pred)
    assert result.summary["froc"]["tumor"]["score"] == 1.0


def test_an_image_that_does_not_fit_is_a_note_not_an_error(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10})
    save(tmp_path / "img" / "a.nii.gz", np.zeros((3, 3, 3), np.float32))
    result = evaluate(pred, ref, task="lung", images=tmp_path / "img")
    assert any(f.kind == "image_unusable" and "(a)" in f.message for f in result.findings)


def test_metrics_and_conventions_can_be_chosen(tmp_path: Path) -> None:
    result = evaluate(*folders(tmp_path, {"a": 8}), metrics=("nsd", "cldice"), tolerance_mm=3.0, surface="area")
    assert list(result.summary["labels"]["1"]) == ["nsd", "cldice"]
    assert "within 3 mm" in result.summary["definitions"]["nsd"]
    assert "weighted by the surface's area" in result.summary["method"]


def test_the_hash_of_a_reference_is_that_of_its_content(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 8})
    first = evaluate(pred, ref).summary["reference_hashes"]
    (ref / "a.nii.gz").unlink()
    save(ref / "a.nrrd", np.asfortranarray(box(10).astype(np.int32)))
    assert evaluate(pred, ref).summary["reference_hashes"] == first
    save(ref / "a.nrrd", box(9))
    assert evaluate(pred, ref).summary["reference_hashes"] != first


def test_cases_wait_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one case at a time, never two are under way."""
    import threading

    from medseg.evaluation import workers

    pairs, _ = find_pairs(*folders(tmp_path, LENGTHS))
    need = case_bytes(pairs[0], has_task=False)
    assert need >= int(np.prod(SHAPE)) * 4
    assert case_bytes(pairs[0], has_task=True) > need
    running, most, lock = 0, [0], threading.Lock()
    real = workers.score_pair

    def counted(*arguments: object) -> object:
        nonlocal running
        with lock:
            running += 1
            most[0] = max(most[0], running)
        try:
            return real(*arguments)  # type: ignore[arg-type]
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(workers, "score_pair", counted)
    monkeypatch.setattr(workers, "available_cpus", lambda: 4)
    scores = score_all(pairs, Scoring(None, ScoreOptions()), 1.5 * need / 1e9, lambda done, total, text: None)
    assert most == [1] and [s.case for s in scores] == [p.case for p in pairs]


@pytest.mark.parametrize(
    ("name", "better"),
    [("dice", "higher"), ("hd95_px", "lower"), ("nsd_1_voxel", "higher"), ("recall_from_8_mm", "higher"),
     ("length_difference_mm", "zero"), ("volume_ml_left_reference", None), ("betti_error_0", "lower"),
     ("dice_fov", "higher"), ("of_another_version", None)],
)  # fmt: skip
def test_a_column_says_which_end_is_better(name: str, better: str | None) -> None:
    record = record_of(name)
    assert record.better == better
    assert record.limits[0] < record.limits[1]


def test_a_sheared_grid_is_straightened_for_everything(tmp_path: Path) -> None:
    tilted = AFFINE.copy()
    tilted[1, 2] = 0.6
    pred, ref = (save(tmp_path / side / "a.nii.gz", box(8), tilted).parent for side in ("pred", "ref"))
    save(tmp_path / "img" / "a.nii.gz", np.zeros(SHAPE, np.float32), tilted)
    save(tmp_path / "second" / "a.nii.gz", box(8), tilted)
    result = evaluate(pred, ref, task="lung", images=tmp_path / "img", second_reference=tmp_path / "second")
    assert result.summary["labels"]["lung"]["dice"]["mean"] == 1.0
    assert result.summary["others"]["second reference"]["labels"]["lung"]["dice"]["mean"] == 1.0
