"""The whole preparation on small data sets: resumed, edited, and refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg import machine
from medseg.config import RunConfig
from medseg.errors import ConfigError, DatasetError, GeometryError, PartialFailure, ReadError, WriteError
from medseg.geometry import reorient
from medseg.preparation import load_plan, normalize, open_case, prepare, save_plan
from medseg.preparation.parallel import run_over_cases
from medseg.preparation.store import case_folder, case_notes, sample_foreground
from medseg.volume import Volume


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.stat().st_ino) for f in folder.rglob("*") if f.is_file()
    }


def test_a_prepared_case_holds_what_was_in_the_files(data) -> None:
    made = data.prepare()
    assert sorted(made.cases) == [f"case_{n}" for n in range(5)] and made.findings == ()
    case = open_case(made.cases["case_0"])
    assert (case.name, case.image.shape, case.labels.shape) == ("case_0", (1, 20, 18, 16), (20, 18, 16))
    assert (case.image.dtype, case.labels.dtype, case.spacing_mm) == (np.float32, np.uint8, (1.0, 1.0, 1.0))
    assert isinstance(case.image, np.memmap) and not case.image.flags.writeable
    assert normalize(case.image, case.scales).std() == pytest.approx(1, abs=1e-4)
    assert case.label_voxels == {0: 20 * 18 * 16 - 144 - 180, 1: 144, 2: 180}
    for value, where in case.foreground.items():
        assert where.dtype == np.int32 and where.shape == (case.label_voxels[value], 3)
        assert (case.labels[tuple(where.T)] == value).all()


def test_a_tilted_case_is_prepared_on_a_straight_grid(data) -> None:
    image = np.full((20, 18, 16), -1000.0, np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[2:6, 4:10, 4:10], labels[12:17, 4:10, 4:10] = 1, 2
    image[labels > 0] = 60
    affine = np.eye(4)
    affine[1, 2] = 0.25  # 14 degrees: the last of 16 slices lies 3.75 voxels further along j
    data.write("tilted", image, labels, affine)
    nearly = affine.copy()
    nearly[1, 2] += 3e-4  # as a file of less precision may say
    data.write("tilted", image, None, nearly)
    made = data.prepare()
    found = next(c for c in made.fingerprint.cases if c.name == "tilted")
    assert (found.shape, found.spacing_mm, found.orientation) == ((20, 22, 16), (1.0, 1.0, 1.0), "RAS")
    assert found.label_voxels == {0: 5436, 1: 144, 2: 180}, "labels are counted as they were drawn"
    case = open_case(made.cases["tilted"])
    assert case.image.shape == (1, 20, 22, 16) and case.labels.shape == (20, 22, 16)
    # Whole rows move, so that every box keeps its volume, and image and labels still agree.
    assert case.label_voxels == {0: 20 * 22 * 16 - 144 - 180, 1: 144, 2: 180}
    assert ((case.image[0] > -470) == (case.labels > 0)).all()
    assert case.image[0, :, 0, -1].max() == case.image[0, :, -1, 0].max() == -1000


def test_progress_counts_every_case_twice(data) -> None:
    calls: list[tuple[int, int, str]] = []
    data.prepare(lambda *call: calls.append(call))
    assert [c[0] for c in calls] == list(range(1, 11)) and {c[1] for c in calls} == {10}
    assert (calls[0][2], calls[-1][2]) == ("checked case_0", "prepared case_4")


def test_a_second_call_touches_nothing(data) -> None:
    first = data.prepare()
    before = state(data.output)
    second = data.prepare()
    assert state(data.output) == before
    assert (second.plan, second.fingerprint, second.cases) == (first.plan, first.fingerprint, first.cases)


def test_only_a_case_whose_file_changed_is_prepared_again(data) -> None:
    data.prepare()
    before = state(data.output / "prepared")
    os.utime(data.image("case_3"), (1, 1))
    data.prepare()
    changed = {Path(f).parts[0] for f, s in state(data.output / "prepared").items() if before[f] != s}
    assert changed == {"case_3", "fingerprint.json"}


def test_a_damaged_or_missing_case_is_prepared_again(data) -> None:
    made = data.prepare()
    (made.cases["case_1"] / "image.npy").write_bytes(b"half")
    (made.cases["case_2"] / "case.json").unlink()
    with pytest.raises(DatasetError, match=r"case_2: not a prepared case.*delete the folder"):
        open_case(made.cases["case_2"])
    before = state(data.output / "prepared")
    again = data.prepare()
    assert all(open_case(f).image.shape == (1, 20, 18, 16) for f in again.cases.values())
    after = state(data.output / "prepared")
    assert {Path(f).parts[0] for f, s in after.items() if before.get(f) != s} == {"case_1", "case_2"}


def test_a_run_killed_half_way_continues(data) -> None:
    script = f"""
        import os, signal
        from medseg.config import RunConfig
        from medseg.preparation import prepare
        def progress(done, total, what):
            if what == "prepared case_2":
                os.kill(os.getpid(), signal.SIGKILL)
        data = {{"root": {str(data.root)!r}, "labels": {{"left_box": 1, "right_box": 2}}}}
        prepare(RunConfig(output={str(data.output)!r}, data=data), progress, memory_gb=4, workers=1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -9
    prepared = data.output / "prepared"
    # What a process killed while it wrote would leave.
    (prepared / ".case_3.999999999.tmp").mkdir()
    before = state(prepared)
    assert "case_2/case.json" in before and "case_3/case.json" not in before
    made = data.prepare()
    after = state(prepared)
    assert {f: after[f] for f in before} == before
    assert len([open_case(f) for f in made.cases.values()]) == 5
    assert not [f.name for f in prepared.iterdir() if f.name.startswith(".")]


def test_a_plan_that_the_user_edited_is_kept_and_used(data) -> None:
    first = data.prepare()
    path = data.output / "plan.yaml"
    save_plan(first.plan.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0), "batch_size": 3}), path)
    text = path.read_text()
    made = data.prepare()
    assert path.read_text() == text and made.plan.batch_size == 3
    assert open_case(made.cases["case_0"]).image.shape == (1, 10, 9, 8)


def test_a_plan_that_does_not_fit_is_refused(data) -> None:
    plan = data.prepare().plan
    path = data.output / "plan.yaml"
    with pytest.raises(ConfigError, match=r"plan.yaml: batch_size is \d+, but .* ask for 7"):
        data.prepare(training={"batch_size": 7})
    with pytest.raises(ConfigError, match=r"plan.yaml: dims is 3, but .* ask for 2"):
        data.prepare(net={"dims": 2})
    with pytest.raises(ConfigError, match=r"plan.yaml: spacing_mm is .* ask for \(2.0, 2.0, 2.0\)"):
        data.prepare(plan={"spacing_mm": (2, 2, 2)})
    with pytest.raises(ConfigError, match=r"plan.yaml: normalization of channel 0 is kind='zscore'.*kind='window'"):
        data.prepare(data={"window": "lung"})
    save_plan(plan.model_copy(update={"in_channels": 2, "normalization": plan.normalization * 2}), path)
    with pytest.raises(ConfigError, match=r"plan.yaml: in_channels is 2, but .* ask for 1"):
        data.prepare()


def test_cases_in_other_axis_orders_are_prepared_alike(data) -> None:
    rng = np.random.default_rng(0)
    image = Volume(rng.normal(size=(8, 9, 10)).astype(np.float32), np.diag([1.0, 1.0, 2.0, 1.0]))
    labels = image.with_array((image.array > 1).astype(np.uint8))
    for name, orientation in (("ras", "RAS"), ("lpi", "LPI"), ("sar", "SAR")):
        turned = reorient(image, orientation)
        # The label of the last one lies on disk in yet another order.
        mask = reorient(labels, "IPL" if name == "sar" else orientation)
        data.write(name, turned.array, None, turned.affine)
        data.write("label", mask.array, mask.array, mask.affine)
        data.label("label").rename(data.label(name))
        data.image("label").unlink()
    for n in range(5):
        data.image(f"case_{n}").unlink()
        data.label(f"case_{n}").unlink()
    made = data.prepare(data={"labels": {"spot": 1}})
    cases = [open_case(made.cases[n]) for n in ("ras", "lpi", "sar")]
    for case in cases[1:]:
        np.testing.assert_array_equal(case.image, cases[0].image)
        np.testing.assert_array_equal(case.labels, cases[0].labels)
        assert case.scales == cases[0].scales


def test_a_2d_net_on_volumes_gets_slices_across_the_thick_axis(data) -> None:
    for n in range(5):
        data.add(f"case_{n}", spacing=(1.0, 4.0, 1.0))
    made = data.prepare(net={"dims": 2})
    assert (made.plan.dims, made.plan.orientation) == (2, "RSA")
    case = open_case(made.cases["case_0"])
    assert case.image.shape == (1, 20, 16, 18) and case.spacing_mm == (1.0, 1.0, 4.0)
    assert case.foreground[1].shape[1] == 3


def test_left_and_right_swapped_are_refused_with_advice(data) -> None:
    with pytest.raises(DatasetError, match=r"swapped in 5 of 5 cases .*'left_box' lies 10.5 mm to the patient's right"):
        data.prepare(data={"labels": {"left_box": 2, "right_box": 1}})
    # One file with a mirrored affine among good ones.
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    image, labels = np.zeros((20, 18, 16), np.float32), np.zeros((20, 18, 16), np.uint8)
    labels[2:6, 4:10, 4:10], labels[12:17, 4:10, 4:10] = 1, 2
    data.write("case_2", image, labels, flipped)
    with pytest.raises(DatasetError, match=r"swapped in 1 of 5 cases \(case_2\).*correct the files"):
        data.prepare()
    assert not (data.output / "plan.yaml").exists()


def test_empty_labels_are_allowed_and_said(data) -> None:
    for n in (1, 3):
        data.write(f"case_{n}", np.ones((8, 8, 8), np.float32), np.zeros((8, 8, 8), np.uint8), np.eye(4))
    made = data.prepare(data={"labels": {"left_box": 1, "right_box": 2, "rare": 9}})
    assert [(f.kind, f.message) for f in made.findings] == [
        ("empty_labels", "2 of 5 cases hold no labelled voxel: case_1, case_3"),
        ("unused_labels", "1 of 3 labels occur in no case: rare"),
    ]
    assert made.findings[0].files == ("case_1", "case_3")
    assert open_case(made.cases["case_1"]).foreground == {}
    assert made.fingerprint.cases[1].label_voxels == {0: 512}


def test_ignored_voxels_are_no_foreground(data) -> None:
    made = data.prepare(data={"labels": {"left_box": 1}, "ignore": 2})
    case = open_case(made.cases["case_0"])
    assert set(case.foreground) == {1} and 2 in case.labels


def refused(made, kind: type[Exception], **parts) -> str:
    with pytest.raises(kind) as caught:
        made.prepare(**parts)
    message = str(caught.value)
    assert "\n" not in message
    assert not made.output.exists(), "nothing may be written for a data set that is refused"
    return message


def test_each_kind_of_bad_case_is_one_line_that_names_the_file(data) -> None:
    from medseg.errors import GeometryError, MedsegError, ReadError

    good = np.ones((8, 8, 8), np.float32)
    spot = (np.arange(512).reshape(8, 8, 8) == 9).astype(np.uint8)

    data.write("case_1", good, (spot * 7).astype(np.uint8), np.eye(4))
    message = refused(data, DatasetError)
    assert str(data.label("case_1")) in message and "label value(s) 7" in message

    data.write("case_1", good, (spot * 255).astype(np.uint8), np.eye(4))
    assert "data.label_threshold: 127" in refused(data, DatasetError)

    data.write("case_1", good, spot[:7], np.eye(4))
    message = refused(data, GeometryError)
    assert str(data.image("case_1")) in message and "do not lie on the same grid" in message

    data.write("case_1", good * np.nan, spot, np.eye(4))
    message = refused(data, ReadError)
    assert str(data.image("case_1")) in message and "NaN" in message

    data.image("case_1").write_bytes(b"not an image at all")
    assert str(data.image("case_1")) in refused(data, ReadError)

    data.add("case_1")
    data.label("case_1").unlink()
    assert "case_1" in refused(data, MedsegError)


def test_all_bad_cases_are_found_in_one_go(data) -> None:
    for n in range(5, 9):
        data.add(f"case_{n}")
    for n in range(8):
        data.write(f"case_{n}", np.ones((4, 4, 4), np.float32), np.full((4, 4, 4), 3, np.uint8), np.eye(4))
    message = refused(data, DatasetError)
    assert message.startswith("8 of 9 cases cannot be used: case case_0: ")
    assert "likewise case_1, case_2, case_3, case_4, case_5 and 2 more" in message


def test_images_that_differ_in_channels_or_axes_are_refused(data) -> None:
    data.write("case_4", np.ones((9, 9, 1), np.float32)[..., 0], np.ones((9, 9), np.uint8), np.eye(4))
    message = refused(data, DatasetError)
    assert "most have 3, case_4 has 2" in message


def test_a_patient_on_both_sides_is_refused_before_images_are_read(data, tmp_path: Path) -> None:
    rows = ["case,image,label,group,split"]
    for n, (group, split) in enumerate([("a", "train"), ("b", "train"), ("b", "validation")]):
        rows.append(f"case_{n},{data.image(f'case_{n}')},{data.label(f'case_{n}')},{group},{split}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows) + "\n")
    data.image("case_0").write_bytes(b"unreadable")
    assert "'b' on both sides" in refused(data, DatasetError, data={"csv": table})


def test_no_output_folder_is_a_config_error(data) -> None:
    with pytest.raises(ConfigError, match="output is not set"):
        prepare(RunConfig(data={"root": data.root, "labels": {"a": 1}}))


def test_a_disk_that_is_full_is_said_and_leaves_no_half_case(data, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = np.save

    def full(file, array, **options):
        if "case_2" in str(file) and str(file).endswith("labels.npy"):
            raise OSError(28, "No space left on device")
        saved(file, array, **options)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(WriteError, match="disk is full"):
        data.prepare()
    assert sorted(f.name for f in (data.output / "prepared").iterdir()) == ["case_0", "case_1", "fingerprint.json"]
    monkeypatch.undo()
    assert len(data.prepare().cases) == 5


def test_threads_give_the_same_store(data) -> None:
    one = data.prepare()
    cases = {n: open_case(f) for n, f in one.cases.items()}
    plan = load_plan(data.output / "plan.yaml")
    data.output = data.output.with_name("threads")
    many = prepare(data.config(), memory_gb=4.0, workers=3)
    assert many.plan == plan and many.fingerprint == one.fingerprint
    for name, folder in many.cases.items():
        other = open_case(folder)
        np.testing.assert_array_equal(other.image, cases[name].image)
        np.testing.assert_array_equal(other.foreground[1], cases[name].foreground[1])


@pytest.mark.slow
def test_processes_give_the_same_store(data, monkeypatch: pytest.MonkeyPatch) -> None:
    one = data.prepare()
    monkeypatch.setattr(sys.modules["medseg.preparation.prepare"], "PROCESSES_FROM_BYTES", 0)
    data.output = data.output.with_name("processes")
    many = prepare(data.config(), memory_gb=4.0, workers=2)
    assert (many.plan, many.fingerprint) == (one.plan, one.fingerprint)
    assert len(many.cases) == 5


def die(_: int) -> None:
    os._exit(9)


def test_a_worker_that_dies_is_a_clear_error() -> None:
    with pytest.raises(PartialFailure, match=r"a worker process died after 0 of 2 cases.*memory"):
        run_over_cases(die, [1, 2], workers=2, processes=True, on_done=lambda *_: None)
    assert machine.available_cpus() >= 1


def test_at_most_five_thousand_voxels_per_label_are_kept_and_the_draw_repeats() -> None:
    labels = np.zeros((40, 40, 20), np.uint16)
    labels[:, :20] = 300
    labels[0, 30, :7] = 2
    first = sample_foreground(labels, None, np.random.default_rng(3))
    again = sample_foreground(labels, None, np.random.default_rng(3))
    assert {k: v.shape for k, v in first.items()} == {2: (7, 3), 300: (5000, 3)}
    assert len(np.unique(first[300], axis=0)) == 5000
    np.testing.assert_array_equal(first[300], again[300])
    # Spread over the whole label, not its beginning.
    assert first[300].mean(axis=0) == pytest.approx((19.5, 9.5, 9.5), abs=0.6)
    assert sample_foreground(labels, 300, np.random.default_rng(3)).keys() == {2}
    assert sample_foreground(np.zeros((3, 3), np.uint8), None, np.random.default_rng(3)) == {}


def test_case_names_become_safe_and_distinct_folders(tmp_path: Path) -> None:
    names = ["plain_01", "study/series", "study_series", "../up", ".hidden", "näme", ""]
    folders = [case_folder(tmp_path, n) for n in names]
    assert folders[0].name == "plain_01"
    assert len(set(folders)) == len(names)
    assert all(f.parent == tmp_path and not f.name.startswith(".") for f in folders)


def test_hippocampus_is_planned_as_a_whole(data_folder: Path, tmp_path: Path) -> None:
    labels = {"anterior": 1, "posterior": 2}
    config = RunConfig(output=tmp_path, data={"root": data_folder / "hippocampus", "labels": labels})
    made = prepare(config, memory_gb=8.0)
    assert len(made.cases) == 60 and made.findings == ()
    assert made.plan.patch_size[:2] == (32, 48) and made.plan.patch_size[2] in (32, 40) and made.plan.batch_size == 4


@pytest.mark.parametrize(
    ("factor", "unit"), [(0.001, "metres"), (1000.0, "micrometres"), (0.008, "centimetres|metres")]
)
def test_a_case_in_another_unit_than_most_is_refused_with_the_likely_one(data, factor: float, unit: str) -> None:
    data.add("other", spacing=(factor, factor, factor))
    with pytest.raises(
        DatasetError, match=rf"case other has voxels of .* mm.*is its spacing in ({unit}) instead of mm"
    ):
        data.prepare()
    assert not (data.output / "plan.yaml").exists()


def test_cases_of_rather_different_sizes_are_of_one_unit(data) -> None:
    data.add("thick", spacing=(1.0, 1.0, 20.0))
    data.add("fine", spacing=(0.1, 0.1, 1.0))
    assert len(data.prepare().cases) == 7


@pytest.mark.parametrize("written", [np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_mask_with_an_identity_affine_is_refused_with_the_command_that_copies_the_images(
    data, written: np.ndarray, direction: float
) -> None:
    affine = np.array([[0.8 * direction, 0, 0, 90], [0, 0.8, 0, 120], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
    data.write("case_0", np.ones((20, 18, 16), np.float32), None, affine)
    data.write("other", np.ones((20, 18, 16), np.float32), np.ones((20, 18, 16), np.uint8), written)
    data.label("other").rename(data.label("case_0"))
    data.image("other").unlink()
    with pytest.raises(GeometryError) as caught:
        data.prepare()
    assert f"medseg convert {data.label('case_0')} OUT.nii.gz --copy-grid {data.image('case_0')}" in str(caught.value)
    assert "resample" not in str(caught.value)


def test_others_become_background_where_that_is_asked_for(data) -> None:
    with pytest.raises(DatasetError, match=r"value\(s\) 2 .*data\.others: background"):
        data.prepare(data={"labels": {"box": 1}})
    made = data.prepare(data={"labels": {"box": 1}, "others": "background"})
    assert open_case(made.cases["case_0"]).label_voxels == {0: 20 * 18 * 16 - 144, 1: 144}
    assert made.fingerprint.cases[0].label_voxels == {0: 20 * 18 * 16 - 144, 1: 144}


def test_several_values_to_ignore_are_one(data) -> None:
    labels = np.zeros((20, 18, 16), np.uint8)
    labels[2:6, 4:10, 4:10] = 1
    labels[8] = 255
    labels[9] = 254
    data.write("odd", np.ones((20, 18, 16), np.float32), labels, np.eye(4))
    for name in range(5):
        data.image(f"case_{name}").unlink()
    made = data.prepare(data={"labels": {"box": 1}, "ignore": [254, 255]})
    assert made.dataset.labels.ignored == (254, 255)
    assert open_case(made.cases["odd"]).label_voxels[254] == 2 * 18 * 16
    with pytest.raises(DatasetError, match=r"value\(s\) 255"):
        data.prepare(data={"labels": {"box": 1}, "ignore": 254})


def test_voxels_without_a_number_get_the_one_asked_for_and_that_is_told(data) -> None:
    image = np.ones((20, 18, 16), np.float32)
    image[0, 0, 0] = np.nan
    labels = np.zeros(image.shape, np.uint8)
    labels[2:6] = 1
    data.write("case_0", image, labels, np.eye(4))
    with pytest.raises(ReadError, match=r"1 NaN or infinite voxel.*data\.nan"):
        data.prepare()
    made = data.prepare(data={"nan": -5})
    assert open_case(made.cases["case_0"]).image.min() == -5
    assert any(finding.kind == "nan" and "count as -5" in finding.message for finding in made.findings)
    image[1, 1, 1] = np.inf
    data.write("case_0", image, labels, np.eye(4))
    with pytest.raises(ReadError, match="infinite"):
        data.prepare(data={"nan": -5})


def test_native_labels_lie_beside_a_resampled_case_and_nowhere_else(data) -> None:
    native = np.asarray(nib.load(data.label("case_0")).dataobj)
    made = data.prepare()
    assert open_case(made.cases["case_0"]).native is None
    save_plan(made.plan.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)}), data.output / "plan.yaml")
    case = open_case(data.prepare().cases["case_0"])
    assert case.labels.shape == (10, 9, 8) and case.native is not None
    np.testing.assert_array_equal(case.native.read(), native)
    np.testing.assert_array_equal(case.native.grid.affine, nib.load(data.label("case_0")).affine)
    case.native.path.write_bytes(b"half")
    with pytest.raises(DatasetError, match=r"case_0: not a prepared case.*delete the folder"):
        case.native.read()
    assert open_case(data.prepare().cases["case_0"]).native.read().shape == native.shape


def test_a_case_that_was_stored_without_its_own_grid_is_prepared_again(data) -> None:
    folder = data.prepare().cases["case_0"]
    stored = json.loads((folder / "case.json").read_text())
    del stored["sizes"]["native.json"]
    (folder / "case.json").write_text(json.dumps(stored))
    (folder / "native.json").unlink()
    assert open_case(data.prepare().cases["case_0"]).native is None


def test_labels_that_a_coarse_grid_loses_are_told_with_their_cases(data) -> None:
    labels = np.zeros((20, 18, 16), np.uint8)
    labels[2:8, 2:8, 2:8] = 1
    labels[15, 5, 5] = 1  # a component of one voxel
    labels[12:14, 2:12, 11] = 2  # a sheet, a third of a new voxel thick
    data.write("thin", np.zeros(labels.shape, np.float32) + labels, labels, np.eye(4))
    made = data.prepare()
    assert not [f for f in made.findings if f.kind == "label_loss"]
    save_plan(made.plan.model_copy(update={"spacing_mm": (1.0, 1.0, 3.0)}), data.output / "plan.yaml")
    for _ in range(2):  # prepared, and found prepared
        first, second = (f.message for f in data.prepare().findings if f.kind == "label_loss")
        assert "1 (left_box)" in first and "thin 1 of 2" in first and "third" not in first
        assert "2 (right_box)" in second and "thin keeps 0%" in second and "thin 1 of 1" in second
        assert "case_0" not in first + second


def test_the_box_of_the_body_is_checked_on_the_grid_where_it_is_applied(data) -> None:
    """Three voxels off the body: within the margin on the image's grid, not on a finer one."""
    image, labels = np.zeros((40, 40, 16), np.float32), np.zeros((40, 40, 16), np.uint8)
    image[4:18, 10:30, 4:12] = 100
    labels[6:12, 12:20, 6:10] = 1
    labels[20, 12:20, 6:10] = 2
    for n in range(5):
        data.write(f"case_{n}", image, labels, np.eye(4))
    made = data.prepare()
    assert case_notes(made.cases["case_0"]).inside_body
    save_plan(made.plan.model_copy(update={"spacing_mm": (0.5, 1.0, 1.0)}), data.output / "plan.yaml")
    assert not case_notes(data.prepare().cases["case_0"]).inside_body
