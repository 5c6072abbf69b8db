"""Battery cases: more ways in which a series holds one volume or several, micro-CT, and what must not change values."""

from __future__ import annotations

from pathlib import Path

import pydicom
from dicom_battery import Case
from dicom_cases_geometry import mixed, one
from dicom_cases_several import several, twice
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, Truth, euler, save, slice_of, write_study
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

PLAIN = Phantom()
MR = Phantom(modality="MR", slopes=None, stored="uint16", offset=700.0)
MICRO = Phantom(spacing=(0.009, 0.011, 0.01), gradient=(300.0, -200.0, 500.0), offset=500.0, origin=(0.1, -0.2, 0.3))
SIX = 6
DIRECTIONS = [(0.0, None), (1000.0, [1.0, 0.0, 0.0]), (1000.0, [0.0, 1.0, 0.0]), (1000.0, [0.0, 0.0, 1.0])]


def _directions(folder: Path) -> list[Truth]:
    volumes = [
        MR.but(
            offset=700.0 + 100 * n,
            numbers=tuple(range(SIX * n + 1, SIX * n + SIX + 1)),
            tags={"DiffusionBValue": b} | ({"DiffusionGradientOrientation": g} if g else {}),
        )
        for n, (b, g) in enumerate(DIRECTIONS)
    ]
    write_study(folder, *volumes)
    return [v.truth() for v in volumes]


def _time_point_with_a_copy(folder: Path) -> list[Truth]:
    pair = [MR.but(offset=700.0 + 200 * n, tags={"TemporalPositionIdentifier": n + 1}) for n in (0, 1)]
    files = write_study(folder, *pair)
    data = pydicom.dcmread(files[8])
    data.SOPInstanceUID = generate_uid(entropy_srcs=["copy"])
    save(data, folder / "copy.dcm")
    return [p.truth() for p in pair]


def _near_copy(offset: float, apart: float) -> list[Dataset]:
    x, y, z = PLAIN.positions[2]
    return [slice_of(PLAIN.but(shape=(9, 7, 1), origin=(x, y, z + apart), offset=offset), 0)]


def _with(extra: list[Dataset]) -> list[Dataset]:
    return [slice_of(PLAIN, k) for k in range(SIX)] + extra


def nearly_twice(name: str, outcome: str, offset: float, apart: float) -> Case:
    """A slice again, a little beside the first."""

    def build(folder: Path) -> list[Truth]:
        datasets = _with(_near_copy(offset, apart))
        for n, data in enumerate(datasets):
            save(data, folder / f"IM{n:04d}.dcm")
        return [] if outcome == "refused" else [PLAIN.truth()]

    return Case(name, build, outcome)  # type: ignore[arg-type]


def _presentation(data: Dataset, k: int) -> None:
    """Windows, a VOI LUT, an inverse presentation and an overlay plane are about display, not about values."""
    data.WindowCenter, data.WindowWidth, data.PresentationLUTShape = "40", "80", "INVERSE"
    table = Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.add_new("LUTData", "OW", bytes(range(256)))
    data.VOILUTSequence = Sequence([table])
    data.add_new(0x60000010, "US", data.Rows)
    data.add_new(0x60000011, "US", data.Columns)
    data.add_new(0x60000040, "CS", "G")
    data.add_new(0x60000050, "SS", [1, 1])
    data.add_new(0x60000100, "US", 1)
    data.add_new(0x60000102, "US", 0)
    data.add_new(0x60003000, "OW", b"\xff" * 8)


def _real_world_value(data: Dataset, k: int) -> None:
    """A Real World Value map stands beside the modality rescale and does not replace it (PS3.3 C.7.6.16.2.11)."""
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 0.001, 7.0
    item.add_new("RealWorldValueFirstValueMapped", "SS", -32768)
    item.add_new("RealWorldValueLastValueMapped", "SS", 32767)
    data.RealWorldValueMappingSequence = Sequence([item])


def _as_floats(data: Dataset, k: int) -> None:
    """Parametric maps and the like: values as they are, no stored integers (PS3.3 C.7.6.24)."""
    data.FloatPixelData = PLAIN.values(k).astype("<f4").tobytes()
    data.BitsAllocated = 32
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(data, keyword)


def _frame_of_another_spacing(folder: Path) -> list[Truth]:
    path = write_enhanced(folder / "IM0000.dcm", PLAIN, per_frame_geometry=True)
    data = pydicom.dcmread(path)
    data.PerFrameFunctionalGroupsSequence[2].PixelMeasuresSequence[0].PixelSpacing = [1.1, 0.9]
    data.save_as(path)
    return []


def _fewer_groups_than_frames(folder: Path) -> list[Truth]:
    path = write_enhanced(folder / "IM0000.dcm", PLAIN)
    data = pydicom.dcmread(path)
    data.PerFrameFunctionalGroupsSequence = data.PerFrameFunctionalGroupsSequence[:-1]
    data.save_as(path)
    return []


def _fewer_frames_than_promised(folder: Path) -> list[Truth]:
    path = write_enhanced(folder / "IM0000.dcm", PLAIN.but(shape=(10, 8, 6)))
    data = pydicom.dcmread(path)
    data.PixelData = data.PixelData[: -data.Rows * data.Columns * 2]
    data.save_as(path)
    return []


def _wrong_offset_table(folder: Path) -> list[Truth]:
    phantom = Phantom(shape=(21, 18, 4), stored="uint16", bits=12, syntax="JPEG-LS lossless")
    path = write_enhanced(folder / "IM0000.dcm", phantom)
    raw = path.read_bytes()
    table = raw.index(b"\xfe\xff\x00\xe0\x10\x00\x00\x00") + 8
    path.write_bytes(raw[:table] + raw[table : table + 8] * 2 + raw[table + 16 :])
    return [phantom.truth()]


APART = {
    "acquisitions": (PLAIN, lambda n, k: {"AcquisitionNumber": n + 1}),
    "times of every slice": (PLAIN, lambda n, k: {"AcquisitionTime": f"10{n}0{k}0.25"}),
    "times by position": (PLAIN, lambda n, k: {"AcquisitionTime": f"1000{2 * k + n:02d}.0"}),
    "time positions": (MR, lambda n, k: {"TemporalPositionIdentifier": n + 1}),
    "trigger times": (MR, lambda n, k: {"TriggerTime": str(500 * n + 13 * k)}),
    "PET frames": (PLAIN, lambda n, k: {"FrameReferenceTime": str(30000 * n + 15000)}),
    "echoes": (MR, lambda n, k: {"EchoTime": str(4.6 * (n + 1))}),
    "gradients": (MR, lambda n, k: {"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": [n, 1.0 - n, 0.0]}),
    "kernels": (PLAIN, lambda n, k: {"ConvolutionKernel": ("B30f", "B70f")[n]}),
    "tube voltages": (PLAIN, lambda n, k: {"KVP": ("80", "140")[n]}),
    "inversion times": (MR, lambda n, k: {"InversionTime": str(300.0 * (n + 1))}),
    "flip angles": (MR, lambda n, k: {"FlipAngle": str(5.0 * (n + 1))}),
    "magnitude and real part": (MR, lambda n, k: {"ComplexImageComponent": ("MAGNITUDE", "REAL")[n]}),
    "energy windows": (PLAIN, lambda n, k: {"SeriesDescription": ("40 keV", "70 keV")[n]}),
}

CASES = [
    one("TriggerTime and EchoTime vary by slice", MR.but(
        per_slice=lambda k: {"TriggerTime": str(13 * k), "EchoTime": f"{4.6 + 0.01 * k:.2f}"})),
    twice("two time points, TriggerTime of every slice", MR, lambda n, k: {"TriggerTime": str(500 * n + 13 * k)}),
    twice("two time points, AcquisitionTime by position", PLAIN, lambda n, k: {
        "AcquisitionTime": f"1000{2 * k + n:02d}.0"}, "time_points"),
    twice("two time points, ContentTime alone", PLAIN, lambda n, k: {"ContentTime": f"10{n}000"}, "time_points"),
    twice("PET frames, FrameReferenceTime", PLAIN.but(modality="PT", tags={
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}), lambda n, k: {"FrameReferenceTime": str(30000 * n + 15000)}),
    twice("two kernels", PLAIN, lambda n, k: {"ConvolutionKernel": ("B30f", "B70f")[n]}),
    twice("two tube voltages", PLAIN, lambda n, k: {"KVP": ("80", "140")[n]}),
    *(twice(f"{name}, InstanceNumber scrambled", phantom, tags, outcome="either", scrambled=True)
      for name, (phantom, tags) in APART.items()),
    twice("nothing but a scrambled InstanceNumber", PLAIN, lambda n, k: {}, outcome="either", scrambled=True),
    Case("b0 and three gradient directions", _directions, "several"),
    Case("two time points, a slice of the second twice", _time_point_with_a_copy, "several"),
    Case("two fields of view in one series", several("", PLAIN, PLAIN.but(
        spacing=(0.4, 0.55, 2.5), offset=1300.0)).build, "either"),
    nearly_twice("a copy one micrometre beside", "either", PLAIN.offset, 0.001),
    nearly_twice("a copy 20 micrometres beside", "either", PLAIN.offset, 0.02),
    nearly_twice("other pixels 20 micrometres beside", "refused", 1040.0, 0.02),
    one("micro-CT, voxels of 10 micrometres", MICRO),
    one("micro-CT, oblique and shuffled", MICRO.but(turn=euler(12.0, -17.0, 23.0), numbers=(4, 1, 6, 2, 5, 3))),
    mixed("micro-CT, missing slice", MICRO.but(shape=(9, 7, 5), depths=(0.0, 0.01, 0.03, 0.04, 0.05))),
    mixed("micro-CT, uneven", MICRO.but(depths=(0.0, 0.01, 0.02, 0.034, 0.044, 0.054))),
    one("micro-CT, tilted", MICRO.but(tilt_deg=15.0), "gantry_tilt"),
    one("window, VOI LUT, inverse presentation and overlay", PLAIN.but(change=_presentation)),
    one("Real World Value map beside the rescale", PLAIN.but(change=_real_world_value)),
    one("pixel data of 16 bits under OB", PLAIN.but(change=lambda data, k: data.add_new(
        "PixelData", "OB", data.PixelData))),
    one("slope of 2, beyond int16", PLAIN.but(slopes=2.0, intercepts=-1024.0, offset=39000.0), tolerance=1.0),
    one("intercepts by slice, beyond int16", PLAIN.but(
        stored="uint16", offset=39000.0, intercepts=tuple(-1024.0 - 8 * k for k in range(SIX)))),
    one("slope of -1, lowest stored value", PLAIN.but(slopes=-1.0, intercepts=0.0, offset=32700.0)),
    Case("32 bits beyond the precision of float32", one("", PLAIN.but(
        stored="uint32", bits=32, offset=5e8, intercepts=0.0)).build, "either"),
    Case("Float Pixel Data", one("", PLAIN.but(slopes=None, change=_as_floats)).build, "either"),
    one("no frame of reference", PLAIN.but(tags={"FrameOfReferenceUID": None})),
    one("no patient identifier", PLAIN.but(tags={"PatientID": None})),
    one("empty patient identifier", PLAIN.but(tags={"PatientID": ""})),
    Case("no series identifier", one("", PLAIN.but(tags={"SeriesInstanceUID": ""})).build, "either"),
    Case("patient identifier on some slices only", one("", PLAIN.but(
        per_slice=lambda k: {"PatientID": ""} if k > 3 else {})).build, "either"),
    one("private SOP class", PLAIN.but(tags={"SOPClassUID": "1.2.840.113619.4.26"})),
    Case("enhanced: a frame of another pixel spacing", _frame_of_another_spacing, "refused"),
    Case("enhanced: fewer groups than frames", _fewer_groups_than_frames, "refused"),
    Case("enhanced: fewer frames than promised", _fewer_frames_than_promised, "refused"),
    Case("enhanced: a wrong offset table", _wrong_offset_table, "either"),
]  # fmt: skip
