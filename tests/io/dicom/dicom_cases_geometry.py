"""Battery cases: where slices lie, and slices that are missing, doubled, foreign or of another kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from dicom_battery import Case
from dicom_phantom_companions import write_objects, write_pretender, write_strangers
from dicom_phantoms import Phantom, Truth, euler, save, slice_of, write_study
from pydicom.uid import generate_uid

PLAIN = Phantom()
OBLIQUE = PLAIN.but(turn=euler(12.0, -17.0, 23.0))
# Columns: directions of i, j, k in LPS.
CORONAL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)
SAGITTAL = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float)
FEET_DOWN = np.diag([1.0, -1.0, -1.0])
PRONE = np.diag([-1.0, -1.0, 1.0])
FEET_FIRST = np.diag([-1.0, 1.0, -1.0])
SIX = 6


def one(name: str, phantom: Phantom, *findings: str, tolerance: float = 0.5) -> Case:
    """A series that is read as it is."""

    def build(folder: Path) -> list[Truth]:
        write_study(folder, phantom)
        return [phantom.truth(tolerance)]

    return Case(name, build, "read", findings)


def changed(
    name: str,
    change: Callable[[Path, list[Path]], None],
    outcome: str = "read",
    findings: tuple[str, ...] = (),
    says: tuple[str, ...] = (),
    phantom: Phantom = PLAIN,
) -> Case:
    """A plain series that `change(folder, files by slice)` then spoils."""

    def build(folder: Path) -> list[Truth]:
        change(folder, write_study(folder, phantom))
        return [] if outcome == "refused" else [phantom.truth()]

    return Case(name, build, outcome, findings, says)  # type: ignore[arg-type]


def mixed(name: str, *phantoms: Phantom, says: tuple[str, ...] = ()) -> Case:
    """A folder in which the slices of several phantoms cannot be one volume."""

    def build(folder: Path) -> list[Truth]:
        write_study(folder, *phantoms)
        return []

    return Case(name, build, "refused", says=says)


def _copy_one(folder: Path, files: list[Path]) -> None:
    shutil.copy(files[2], folder / "copy of a slice.dcm")


def _copy_all(folder: Path, files: list[Path]) -> None:
    (folder / "again").mkdir()
    for file in files:
        shutil.copy(file, folder / "again" / file.name)


def _export_again(folder: Path, files: list[Path]) -> None:
    data = pydicom.dcmread(files[2])
    data.SOPInstanceUID = generate_uid(entropy_srcs=["again"])
    data.InstanceNumber = 99
    save(data, folder / "exported again.dcm")


def _other_pixels(folder: Path, files: list[Path]) -> None:
    data = slice_of(PLAIN.but(offset=1040.0), 2)
    save(data, folder / "differs.dcm")


def _other_pixels_same_uid(folder: Path, files: list[Path]) -> None:
    data = slice_of(PLAIN.but(offset=1040.0), 2)
    data.SOPInstanceUID = pydicom.dcmread(files[2]).SOPInstanceUID
    save(data, folder / "differs.dcm")


def _recompressed(folder: Path, files: list[Path]) -> None:
    data = pydicom.dcmread(files[2])
    data.SOPInstanceUID = generate_uid(entropy_srcs=["compressed"])
    save(data, folder / "compressed.dcm", "JPEG-LS lossless")


def _no_position(data: pydicom.Dataset, k: int) -> None:
    if k == 3:
        del data.ImagePositionPatient


def _empty_position(data: pydicom.Dataset, k: int) -> None:
    if k == 3:
        data.ImagePositionPatient = None


def _cut_short(folder: Path, files: list[Path]) -> None:
    files[2].write_bytes(files[2].read_bytes()[:-40])


def _localizer(turn: np.ndarray, image_type: list[str], slices: int = 1) -> Phantom:
    return PLAIN.but(
        shape=(12, 10, slices), turn=turn, spacing=(1.5, 1.5, 30.0), offset=900.0, tags={"ImageType": image_type}
    )


def _with_localizer(localizer: Phantom) -> Callable[[Path], list[Truth]]:
    def build(folder: Path) -> list[Truth]:
        write_study(folder, PLAIN, localizer)
        return [PLAIN.truth()]

    return build


def _without(*gone: int) -> Phantom:
    depths = tuple(2.5 * k for k in range(SIX + len(gone)) if k not in gone)
    return PLAIN.but(depths=depths, shape=(9, 7, len(depths)))


def _beside(write: Callable[[Path], None]) -> Callable[[Path, list[Path]], None]:
    return lambda folder, files: write(folder)


SHORT = PLAIN.but(shape=(9, 7, 5), depths=(0.0, 2.5, 5.0, 10.0, 12.5))
LOWER, UPPER = PLAIN.but(shape=(9, 7, 3)), PLAIN.but(shape=(9, 7, 3), depths=(7.5, 10.0, 12.5))
MISSING = _without(2)
TWO_MISSING = _without(2, 3)
UNEVEN = PLAIN.but(depths=(0.0, 2.5, 5.0, 8.6, 11.0, 13.4))

CASES = [
    one("plain", PLAIN),
    one("InstanceNumber constant", PLAIN.but(numbers=(1,) * SIX)),
    one("InstanceNumber descending", PLAIN.but(numbers=(6, 5, 4, 3, 2, 1))),
    one("InstanceNumber absent", PLAIN.but(tags={"InstanceNumber": None})),
    one("InstanceNumber shuffled", PLAIN.but(numbers=(4, 1, 6, 2, 5, 3))),
    one("SliceLocation lies", PLAIN.but(per_slice=lambda k: {"SliceLocation": str((k * 5) % 7)})),
    one("AcquisitionNumber, times and tube current differ by slice", PLAIN.but(
        per_slice=lambda k: {"AcquisitionNumber": k // 3, "AcquisitionTime": f"10000{k}", "ContentTime": f"10000{k}",
                             "XRayTubeCurrent": 100 + k})),
    one("anisotropic", PLAIN.but(spacing=(0.5, 1.9, 7.0))),
    one("coronal", PLAIN.but(turn=CORONAL)),
    one("sagittal", PLAIN.but(turn=SAGITTAL)),
    one("oblique", OBLIQUE),
    one("nearly 45 degrees oblique", PLAIN.but(turn=euler(44.9, 45.1, -44.8))),
    one("negative normal", PLAIN.but(turn=FEET_DOWN)),
    one("mirrored rows", PLAIN.but(turn=np.diag([-1.0, 1.0, -1.0]))),
    one("HFP", PLAIN.but(turn=PRONE, tags={"PatientPosition": "HFP"})),
    one("FFS", PLAIN.but(turn=FEET_FIRST, tags={"PatientPosition": "FFS"})),
    one("HFS", PLAIN.but(tags={"PatientPosition": "HFS"})),
    one("HFDR", PLAIN.but(turn=euler(z=90.0), tags={"PatientPosition": "HFDR"})),
    one("orientation differs in the seventh digit", PLAIN.but(change=lambda data, k: setattr(
        data, "ImageOrientationPatient", [1, 1e-7 * k, 0, -1e-7 * k, 1, 0]))),
    one("over-long DS", OBLIQUE.but(digits=17), "illegal_value"),
    one("gantry tilt 15 degrees", PLAIN.but(turn=euler(x=-15.0), tilt_deg=-15.0, tags={"GantryDetectorTilt": 15}),
        "gantry_tilt"),
    one("gantry tilt, no tilt tag, oblique", OBLIQUE.but(tilt_deg=20.0), "gantry_tilt"),
    one("gantry tilt 2 degrees", PLAIN.but(tilt_deg=2.0, shape=(9, 7, 20), offset=800.0), "gantry_tilt"),
    one("single slice", PLAIN.but(shape=(9, 7, 1), turn=CORONAL)),
    one("two slices", PLAIN.but(shape=(9, 7, 2))),
    one("one column", PLAIN.but(shape=(1, 7, 6))),
    mixed("missing slice", MISSING, says=("missing",)),
    mixed("two neighbouring slices missing", TWO_MISSING, says=("missing",)),
    mixed("missing slice, tilted", MISSING.but(tilt_deg=15.0), says=("missing",)),
    mixed("uneven spacing", UNEVEN, says=("even", "spacing")),
    changed("identical duplicate", _copy_one, findings=("duplicate_slices",)),
    changed("every slice twice, in a sub-folder", _copy_all, findings=("duplicate_slices",)),
    changed("identical pixels exported again", _export_again, findings=("duplicate_slices",)),
    changed("identical pixels exported again, compressed", _recompressed, "either"),
    changed("differing duplicate", _other_pixels, "refused", says=("position", "duplicate", "differ")),
    changed("differing duplicate under the same SOPInstanceUID", _other_pixels_same_uid, "refused"),
    mixed("one slice of another size", SHORT, PLAIN.but(shape=(11, 9, 1), depths=(7.5,)), says=("size", "x")),
    mixed("one slice of another pixel spacing", SHORT, PLAIN.but(shape=(9, 7, 1), depths=(7.5,), spacing=(0.9, 1.1, 1)),
          says=("spacing",)),
    mixed("no position tags", PLAIN.but(tags={"ImagePositionPatient": None, "ImageOrientationPatient": None}),
          says=("ImagePositionPatient", "position")),
    mixed("one slice without position", PLAIN.but(change=_no_position), says=("ImagePositionPatient", "position")),
    mixed("one slice with an empty position", PLAIN.but(change=_empty_position),
          says=("ImagePositionPatient", "position")),
    changed("one slice cut short", _cut_short, "refused"),
    mixed("one SeriesInstanceUID for two patients", LOWER, UPPER.but(patient=2), says=("patient",)),
    mixed("one SeriesInstanceUID for two patients, same positions", PLAIN, PLAIN.but(patient=2, offset=1200.0),
          says=("patient",)),
    mixed("one SeriesInstanceUID for two frames of reference", LOWER, UPPER.but(frame_of_reference=2),
          says=("frame",)),
    mixed("one SeriesInstanceUID for two studies", LOWER, UPPER.but(study=2), says=("stud",)),
    Case("localizer inside", _with_localizer(_localizer(CORONAL, ["ORIGINAL", "PRIMARY", "LOCALIZER"])),
         findings=("localizer_dropped",)),
    Case("two localizers inside, one sagittal", _with_localizer(
        _localizer(SAGITTAL, ["ORIGINAL", "PRIMARY", "LOCALIZER"], 2)), findings=("localizer_dropped",)),
    Case("localizer inside, same orientation and size", _with_localizer(
        PLAIN.but(shape=(9, 7, 1), depths=(40.0,), tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})),
        findings=("localizer_dropped",)),
    changed("SR, PR, KO, RTSTRUCT, raw data, PDF and DICOMDIR beside", _beside(lambda f: write_objects(f, PLAIN))),
    changed("files that are no DICOM beside", _beside(write_strangers)),
    changed("a text named as a slice beside", _beside(write_pretender), "either"),
]  # fmt: skip
