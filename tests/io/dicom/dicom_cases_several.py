"""Battery cases: several volumes in one folder (time points, series, patients), and enhanced multi-frame files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicom_battery import Case
from dicom_cases_geometry import CORONAL, SAGITTAL
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, Truth, euler, save, slice_of, write_study
from pydicom.uid import generate_uid

PLAIN = Phantom()
MR = Phantom(modality="MR", slopes=None, stored="uint16", offset=700.0)
SIX = 6
TIME = ("time_points",)


def several(name: str, *phantoms: Phantom, findings: tuple[str, ...] = (), says: tuple[str, ...] = ("2 ",)) -> Case:
    """Volumes that must not become one."""

    def build(folder: Path) -> list[Truth]:
        write_study(folder, *phantoms)
        return [phantom.truth() for phantom in phantoms]

    return Case(name, build, "several", findings, says)


def twice(
    name: str,
    first: Phantom,
    tags: Callable[[int, int], dict[str, Any]],
    *findings: str,
    outcome: str = "several",
    scrambled: bool = False,
) -> Case:
    """Two volumes at the same positions in one series; `tags(volume, k)` tells them apart.

    InstanceNumber counts through the volumes, one after the other; `scrambled`, it is drawn at random over both.
    """
    count = first.shape[2]
    numbers = np.random.default_rng(5).permutation(2 * count) + 1 if scrambled else np.arange(2 * count) + 1
    pair = [
        first.but(
            offset=first.offset + 300 * n,
            per_slice=lambda k, n=n: tags(n, k),
            numbers=tuple(numbers[count * n : count * (n + 1)]),
        )
        for n in (0, 1)
    ]
    says = ("2 ",) if outcome == "several" else ()
    return replace(several(name, *pair, findings=findings, says=says), outcome=outcome)  # type: ignore[arg-type]


def enhanced(name: str, *phantoms: Phantom, outcome: str = "", findings: tuple[str, ...] = (), **options: Any) -> Case:
    """One enhanced multi-frame file."""

    def build(folder: Path) -> list[Truth]:
        write_enhanced(folder / "IM0000.dcm", *phantoms, **options)
        return [] if outcome == "refused" else [phantom.truth() for phantom in phantoms]

    kind = outcome or ("several" if len(phantoms) > 1 else "read")
    return Case(f"enhanced: {name}", build, kind, findings)  # type: ignore[arg-type]


def _numbered(folder: Path, per_position: bool) -> list[Truth]:
    counts = [tuple((2 * k + n + 1 if per_position else 1 + SIX * n + k) for k in range(SIX)) for n in (0, 1)]
    pair = [PLAIN.but(offset=1000.0 + 300 * n, numbers=counts[n]) for n in (0, 1)]
    write_study(folder, *pair)
    return [p.truth() for p in pair]


def _one_slice_lost(folder: Path) -> list[Truth]:
    first, second = (PLAIN.but(offset=1000.0 + 300 * n, tags={
        "AcquisitionNumber": n + 1, "AcquisitionTime": f"10{n}000"}) for n in (0, 1))  # fmt: skip
    files = write_study(folder, first, second)
    files[SIX + 2].unlink()
    return [first.truth()]


def _scans_that_overlap(folder: Path) -> list[Truth]:
    lower = PLAIN.but(tags={"AcquisitionNumber": 1})
    upper = PLAIN.but(tags={"AcquisitionNumber": 2}, offset=1040.0, depths=tuple(10.0 + 2.5 * k for k in range(SIX)))
    write_study(folder, lower, upper)
    return [lower.truth(), upper.truth()]


def _scout_without_a_name(folder: Path) -> list[Truth]:
    scout = PLAIN.but(shape=(12, 10, 1), turn=CORONAL, spacing=(1.5, 1.5, 1.0))
    write_study(folder, PLAIN, scout)
    return [PLAIN.truth(), scout.truth()]


def _two_multiframe_files(folder: Path) -> list[Truth]:
    lower = PLAIN.but(shape=(9, 7, 3))
    write_enhanced(folder / "IM0000.dcm", lower)
    write_enhanced(folder / "IM0001.dcm", lower.but(depths=(7.5, 10.0, 12.5)))
    return [PLAIN.truth()]


def _frames_without_a_place(folder: Path) -> list[Truth]:
    data = slice_of(PLAIN, 0)
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"
    data.NumberOfFrames = SIX
    data.PixelData = b"".join(PLAIN.stored_values(k).tobytes() for k in range(SIX))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(data, keyword)
    save(data, folder / "IM0000.dcm")
    return []


def _dose(folder: Path) -> list[Truth]:
    """RT Dose (PS3.3 C.8.8.3): frames at GridFrameOffsetVector along the normal, values = stored * DoseGridScaling."""
    phantom = PLAIN.but(slopes=0.01, intercepts=0.0, stored="uint32", bits=32, offset=100.0)
    data = slice_of(phantom, 0)
    data.SOPClassUID, data.Modality = "1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE"
    del data.RescaleSlope, data.RescaleIntercept
    data.NumberOfFrames, data.DoseGridScaling, data.DoseUnits = SIX, "0.01", "GY"
    data.FrameIncrementPointer = pydicom.datadict.tag_for_keyword("GridFrameOffsetVector")
    data.GridFrameOffsetVector = [2.5 * k for k in range(SIX)]
    data.PixelData = b"".join(phantom.stored_values(k).tobytes() for k in range(SIX))
    data.SOPInstanceUID = generate_uid(entropy_srcs=["dose"])
    save(data, folder / "IM0000.dcm")
    return [phantom.truth()]


OTHER = PLAIN.but(series=2, turn=euler(5.0, 6.0, 7.0), offset=1300.0, shape=(8, 5, 4))
SECOND_PATIENT = PLAIN.but(series=2, patient=2, study=2, frame_of_reference=2, offset=1200.0)
LONG = PLAIN.but(shape=(9, 7, 4))
SAGITTAL_STACK = LONG.but(turn=SAGITTAL, offset=1200.0)
PET_LIKE = PLAIN.but(slopes=tuple(0.15 * (k + 1) for k in range(SIX)), intercepts=tuple(-3.0 * k for k in range(SIX)))
LATER = PLAIN.but(offset=1300.0)
GAP = PLAIN.but(shape=(9, 7, 5), depths=(0.0, 2.5, 7.5, 10.0, 12.5))

CASES = [
    twice("two time points, AcquisitionNumber and AcquisitionTime", PLAIN, lambda n, k: {
        "AcquisitionNumber": n + 1, "AcquisitionTime": f"10{n}000.5"}, *TIME),
    twice("two time points, AcquisitionTime of every slice", PLAIN, lambda n, k: {
        "AcquisitionTime": f"10{n}0{k}0.25"}, *TIME),
    twice("two time points, TemporalPositionIdentifier", MR, lambda n, k: {
        "TemporalPositionIdentifier": n + 1, "NumberOfTemporalPositions": 2}, *TIME),
    twice("two time points, TriggerTime", MR, lambda n, k: {"TriggerTime": str(40 * n + 1)}, *TIME),
    Case("two time points, InstanceNumber by volume", lambda f: _numbered(f, False), "several", TIME, ("2 ",)),
    Case("two time points, InstanceNumber by position", lambda f: _numbered(f, True), "several", TIME, ("2 ",)),
    twice("two echoes", MR, lambda n, k: {"EchoTime": str(4.6 * (n + 1)), "EchoNumbers": n + 1}),
    twice("magnitude and phase", MR, lambda n, k: {"ImageType": ["ORIGINAL", "PRIMARY", "MP"[n], "ND"]}),
    twice("two b-values", MR, lambda n, k: {"DiffusionBValue": 1000.0 * n}),
    Case("two time points, one slice of the second lost", _one_slice_lost, "either"),
    Case("two scans that overlap in one series", _scans_that_overlap, "either"),
    several("two series mixed", PLAIN, OTHER, says=("498.3.1",)),
    several("two series mixed, same grid", PLAIN, PLAIN.but(series=2, offset=1300.0), says=("498.3.2",)),
    several("two patients in one folder", PLAIN, SECOND_PATIENT, says=("498.3.2",)),
    several("three orientations in one series", LONG, LONG.but(turn=CORONAL, offset=1100.0), SAGITTAL_STACK,
            says=("3 ",)),
    Case("scout without the word LOCALIZER", _scout_without_a_name, "either"),
    enhanced("shared groups, frames in order", PLAIN, in_order=True),
    enhanced("frames shuffled", PLAIN),
    enhanced("per-frame rescale", PET_LIKE),
    enhanced("per-frame rescale, MR, shuffled otherwise", PET_LIKE.but(modality="MR"), seed=7),
    enhanced("everything per frame, oblique", PLAIN.but(turn=euler(12.0, -17.0, 23.0)), per_frame_geometry=True),
    enhanced("negative normal", PLAIN.but(turn=np.diag([1.0, -1.0, -1.0]))),
    enhanced("gantry tilt", PLAIN.but(tilt_deg=12.0), findings=("gantry_tilt",)),
    enhanced("one frame", PLAIN.but(shape=(9, 7, 1))),
    enhanced("missing frame", GAP, outcome="refused"),
    enhanced("JPEG 2000", Phantom(shape=(21, 18, 4), stored="uint16", bits=12, syntax="JPEG 2000 lossless")),
    enhanced("RLE, 12 bits", Phantom(shape=(21, 18, 4), stored="uint16", bits=12, syntax="RLE")),
    enhanced("JPEG-LS, no offset table", Phantom(
        shape=(21, 18, 4), stored="uint16", bits=12, syntax="JPEG-LS lossless", offset_table=False)),
    enhanced("JPEG-LS, 3 fragments a frame", Phantom(
        shape=(21, 18, 4), stored="uint16", bits=12, syntax="JPEG-LS lossless", fragments=3)),
    enhanced("deflated", PLAIN.but(syntax="deflated")),
    enhanced("big endian", PLAIN.but(syntax="explicit big endian")),
    enhanced("8 bits, odd frames", Phantom(
        stored="uint8", bits=8, intercepts=0.0, offset=100.0, origin=(0.0, 0.0, 0.0))),
    enhanced("two time points", PLAIN, LATER, apart="time", findings=TIME),
    enhanced("two time points, per-frame rescale", PET_LIKE, PET_LIKE.but(offset=1300.0), apart="time", findings=TIME),
    enhanced("two stacks", LONG, SAGITTAL_STACK, apart="stack"),
    enhanced("two parallel stacks, a gap between", LONG, LONG.but(depths=(31.0, 33.5, 36.0, 38.5)), apart="stack"),
    Case("enhanced: one volume over two files", _two_multiframe_files, "either"),
    Case("multi-frame without positions", _frames_without_a_place, "refused", says=("position",)),
    Case("RT dose", _dose, "either"),
]  # fmt: skip
