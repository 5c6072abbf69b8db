"""A name in an output folder belongs to the study that took it first: no mask ever replaces another study's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import unicodedata
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from selection_studies import write_series

import medseg
from medseg.errors import ConfigError
from medseg.inference import load_model
from medseg.io.output_names import NAMES_FILE, Owner, claim_names
from medseg.studies import PredictOptions, predict_studies
from medseg.studies.ledger import hash_file
from medseg.volume import Volume

A, B, C = (f"1.2.826.0.1.3680043.8.498.{n}.12345678" for n in (1, 2, 3))


def study(folder: Path, uid: str, **tags: Any) -> Path:
    """A DICOM study of one series in `folder`; the voxels follow from the UID."""
    seed = int(uid.split(".")[-2])
    array = np.random.default_rng(seed).integers(0, 3, (6, 5, 8)).astype(np.int16)
    number = str(tags.get("SeriesInstanceUID", "1")).rpartition(".")[2] or "1"
    made = write_series(folder.parent / f"{uid}-{folder.name}", 1, array=array, **tags)
    for n, path in enumerate(sorted(made.iterdir())):
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID = tags.get("SeriesInstanceUID", f"{uid}.1")
        data.StudyInstanceUID = tags.get("StudyInstanceUID", uid)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{number}.{n + 1}"
        data.save_as(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, folder)
    shutil.rmtree(made.parent)
    return folder


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 3, (6, 5, 8)).astype(np.float32)
    medseg.write(Volume(array, np.diag([-1.0, 1.0, 1.0, 1.0])), path)
    return path


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """The last row of every case."""
    return {row["case"]: row for row in map(json.loads, (out / "ledger.jsonl").read_text().splitlines())}


def check_each_has_its_own(out: Path, model: Path, sources: list[Path]) -> None:
    """Every source has a mask of its own voxels, and rows and files agree."""
    done = rows(out)
    files = {path.name.removesuffix(".nii.gz"): path for path in out.glob("*.nii.gz")}
    assert set(done) == set(files)
    assert all(hash_file(files[case]) == row["output_hash"] for case, row in done.items())
    assert len({unicodedata.normalize("NFC", case).casefold() for case in done}) == len(done)
    assert {path.stem for path in (out / "previews").iterdir()} == set(done)
    masks = {case: medseg.read(path).array.tobytes() for case, path in files.items()}
    loaded = load_model(model)
    for source in sources:
        expected = loaded.predict(medseg.read(source)).array.tobytes()
        assert expected in masks.values(), source
    assert len(set(masks.values())) == len(sources) == len(masks)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_study_predicted_later_gets_a_suffix_where_its_name_is_taken(threshold_bundle, tmp_path, overwrite):
    model, out = threshold_bundle(), tmp_path / "out"
    sources = [study(tmp_path / name / "DICOM", uid) for name, uid in (("a", A), ("b", B), ("c", C))]
    options = PredictOptions(overwrite=overwrite)
    for source in sources:
        predict_studies(model, [source], out, options).raise_for_failures()
    check_each_has_its_own(out, model, sources)
    assert "DICOM" in rows(out) and all(case.startswith("DICOM") for case in rows(out))
    # Each keeps its name, in any order.
    before = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
    for source in reversed(sources):
        again = predict_studies(model, [source], out, options)
        assert len(again.skipped) == (0 if overwrite else 1) and again.exit_code == 0
    assert before == {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
    check_each_has_its_own(out, model, sources)


def test_studies_of_one_name_in_one_call_are_all_predicted(threshold_bundle, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    sources = [study(tmp_path / name / "DICOM", uid) for name, uid in (("a", A), ("b", B))]
    sources.append(image(tmp_path / "c" / "DICOM.nii.gz", 7))
    sources.append(image(tmp_path / "d" / "dicom.nii.gz", 8))
    assert len(predict_studies(model, sources, out, PredictOptions(dry_run=True)).planned) == 4 and not out.exists()
    predict_studies(model, sources, out).raise_for_failures()
    check_each_has_its_own(out, model, sources)
    assert len(predict_studies(model, sources, out).skipped) == 4


def test_a_place_that_is_given_twice_or_with_the_folder_above_is_one_case(threshold_bundle, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    first, second = (study(tmp_path / "in" / name, uid) for name, uid in (("p1", A), ("p2", B)))
    result = predict_studies(model, [tmp_path / "in", first, second, tmp_path / "in" / ".." / "in" / "p1"], out)
    assert [row.case for row in result.rows] == ["p1", "p2"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("caf\u00e9", "cafe\u0301"), ("Scan", "sCAN"), ("stra\u00dfe", "STRASSE"), ("\u00c9tude", "\u00e9tude")],
)
def test_names_that_differ_in_case_or_unicode_form_alone_are_one_name(threshold_bundle, tmp_path, one, other):
    model, out = threshold_bundle(), tmp_path / "out"
    sources = [image(tmp_path / "a" / f"{one}.nii.gz", 1), image(tmp_path / "b" / f"{other}.nii.gz", 2)]
    for source in sources:
        predict_studies(model, [source], out).raise_for_failures()
    check_each_has_its_own(out, model, sources)


def test_studies_of_one_name_in_zips_keep_apart_and_their_names(threshold_bundle, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    sources = [study(tmp_path / "zips" / name / "DICOM", uid) for name, uid in (("a", A), ("b", B))]
    nameless = [
        study(tmp_path / "zips" / name / "DICOM", uid, StudyInstanceUID="", SeriesInstanceUID="")
        for name, uid in (("c", C),)
    ]
    archives = []
    for folder in sources + nameless:
        archive = tmp_path / folder.parent.name / "export.zip"
        archive.parent.mkdir()
        with zipfile.ZipFile(archive, "w") as packed:
            for path in folder.iterdir():
                packed.write(path, f"DICOM/{path.name}")
        archives.append(archive)
    for archive in archives:
        predict_studies(model, [archive], out).raise_for_failures()
    check_each_has_its_own(out, model, sources + nameless)
    assert len(predict_studies(model, archives, out).skipped) == 3


def test_two_series_of_one_study_have_a_mask_each_and_the_first_keeps_the_name(threshold_bundle, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    folder = tmp_path / "study"
    for n in (1, 2):
        study(folder / str(n), A, SeriesInstanceUID=f"{A}.{n}", SeriesDescription="same")
        for path in (folder / str(n)).iterdir():
            data = pydicom.dcmread(path)
            data.PixelData = (np.frombuffer(data.PixelData, np.int16) // n).tobytes()
            data.save_as(path)
    assert predict_studies(model, [folder], out).failed[0].case == "study"
    for n in (1, 2):
        predict_studies(model, [folder], out, PredictOptions(series=f"{A}.{n}")).raise_for_failures()
    assert rows(out)["study"]["series_uid"] == f"{A}.1" and len(rows(out)) == 2
    check_each_has_its_own(out, model, [folder / "1", folder / "2"])


def test_a_study_that_failed_keeps_its_name_for_the_next_try(threshold_bundle, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    first, second = (study(tmp_path / name / "DICOM", uid) for name, uid in (("a", A), ("b", B)))
    broken = sorted(first.iterdir())[4]
    whole = broken.read_bytes()
    broken.unlink()
    assert predict_studies(model, [first], out).exit_code == 3
    predict_studies(model, [second], out).raise_for_failures()
    broken.write_bytes(whole)
    predict_studies(model, [first], out).raise_for_failures()
    assert {case: row["state"] for case, row in rows(out).items()}["DICOM"] in ("done", "needs_review")
    check_each_has_its_own(out, model, [first, second])


def test_in_a_folder_of_an_older_version_the_content_tells_whose_a_name_is(threshold_bundle, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    first, second = (study(tmp_path / name / "DICOM", uid) for name, uid in (("a", A), ("b", B)))
    predict_studies(model, [first], out).raise_for_failures()
    (out / NAMES_FILE).unlink()
    old = json.loads((out / "ledger.jsonl").read_text())
    del old["study_hash"], old["images"]
    (out / "ledger.jsonl").write_text(json.dumps(old) + "\n")
    predict_studies(model, [second], out).raise_for_failures()
    assert predict_studies(model, [first], out).skipped == ("DICOM",)
    check_each_has_its_own(out, model, [first, second])


@pytest.mark.parametrize("key", ["another", "none"])
def test_where_the_sites_key_is_another_or_cannot_be_had_the_content_decides(
    threshold_bundle, tmp_path, monkeypatch, key
):
    model, out = threshold_bundle(), tmp_path / "out"
    first, second = (image(tmp_path / name / "ct.nii.gz", n) for n, name in enumerate(("a", "b")))
    predict_studies(model, [first], out).raise_for_failures()
    home = tmp_path / key
    if key == "none":
        home.write_text("a file, so that no folder can be made")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    predict_studies(model, [second], out).raise_for_failures()
    assert predict_studies(model, [first], out).skipped == ("ct",)
    check_each_has_its_own(out, model, [first, second])


def test_a_mask_never_replaces_an_image(threshold_bundle, tmp_path):
    model = threshold_bundle()
    picture, folder = image(tmp_path / "in" / "ct.nii.gz", 1), study(tmp_path / "study", A)
    shutil.move(folder / "000", folder / "study.dcm")
    before = picture.read_bytes(), (folder / "study.dcm").read_bytes()
    with pytest.raises(ConfigError, match=r"would replace the image .*ct\.nii\.gz; choose another"):
        predict_studies(model, [picture], picture.parent)
    with pytest.raises(ConfigError, match=r"would replace the image .*study\.dcm; choose another"):
        predict_studies(model, [folder], folder, PredictOptions(format="dicom-seg"))
    assert before == (picture.read_bytes(), (folder / "study.dcm").read_bytes())
    assert [path.name for path in picture.parent.iterdir()] == ["ct.nii.gz"]


def test_two_processes_at_once_give_every_study_a_mask(unet_bundle, tmp_path):
    out = tmp_path / "out"
    sources = [study(tmp_path / name / "DICOM", uid) for name, uid in (("a", A), ("b", B))]
    script = (
        "import sys; from medseg.inference import predict_studies, PredictOptions\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "predict_studies(sys.argv[1], [sys.argv[2]], sys.argv[3], PredictOptions(settle=0)).raise_for_failures()"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, unet_bundle, source, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for source in sources
    ]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    for process in running:
        process.communicate(b"go\n")
        assert process.returncode == 0
    done = rows(out)
    assert len(done) == 2 and len({row["study_hash"] for row in done.values()}) == 2
    assert all(hash_file(out / f"{case}.nii.gz") == row["output_hash"] for case, row in done.items())


def test_names_that_are_claimed_at_once_are_all_different(tmp_path):
    names: list[str] = []
    barrier = threading.Barrier(16)

    def claim(n: int) -> None:
        barrier.wait()
        names.extend(claim_names(tmp_path, [("scan", Owner(f"{n:016d}", "", f"{n:016d}"))], lambda index, name: None))

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 16


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (pip install '.[ray]')")
def test_on_ray_workers_every_study_has_its_own_mask(unet_bundle, tmp_path):
    out = tmp_path / "out"
    sources = [study(tmp_path / name / "DICOM", uid) for name, uid in (("a", A), ("b", B), ("c", C))]
    predict_studies(unet_bundle, sources[:2], out, PredictOptions(engine="ray")).raise_for_failures()
    predict_studies(unet_bundle, sources[2:], out, PredictOptions(engine="ray")).raise_for_failures()
    done = rows(out)
    assert len(done) == 3 and len({row["study_hash"] for row in done.values()}) == 3
    assert all(hash_file(out / f"{case}.nii.gz") == row["output_hash"] for case, row in done.items())
    assert len(predict_studies(unet_bundle, sources, out).skipped) == 3
