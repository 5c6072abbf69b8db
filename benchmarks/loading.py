"""Loading a DICOM series side by side: medseg, SimpleITK, dcm2niix, MONAI, in one run on a warm cache.

    python benchmarks/loading.py [--source FOLDER] [--kinds uncompressed jpeg-ls] [--repeats 5] [--slices 300]

The series is made on the spot: the slices of `--source` (a folder of DICOM slices), or synthetic ones, repeated and
shifted to 300, encoded in four ways. Contenders alternate repeat by repeat, so that a noisy machine is noisy for all of
them; the figure is the median wall time of folder -> array in memory, without the import of packages. dcm2niix is a
program of its own: folder -> uncompressed NIfTI on a RAM disk, start of the process included. Extra memory is the peak
of the resident set during one read in a fresh process, less what was resident before; modules are loaded by then.
Packages that are not installed are left out (`".[bench]"`, `pip install dcm2niix`; encoding needs imagecodecs).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Job = Callable[[], object]
RAM_DISK = Path("/dev/shm")
KINDS = ("uncompressed", "jpeg-ls", "jpeg-2000", "rle")
# Largest share of the other's wall time that issue 3, row B4, allows.
TARGETS = {
    ("uncompressed", "SimpleITK"): 0.7,
    ("uncompressed", "dcm2niix"): 1.0,
    ("uncompressed", "MONAI PydicomReader"): 1 / 6,
    ("uncompressed", "MONAI ITKReader"): 1 / 6,
    ("jpeg-ls", "SimpleITK"): 0.65,
    ("jpeg-2000", "SimpleITK"): 1.0,
    ("rle", "SimpleITK"): 0.2,
}
MEMORY_TARGET = 2.5


# The series


def source_slices(folder: Path | None) -> list[NDArray[np.uint16]]:
    """Stored values of some slices: real ones, or 20 synthetic ones of a noisy body."""
    if folder is None:
        return _synthetic(20)
    import pydicom

    data = [pydicom.dcmread(path) for path in sorted(folder.iterdir()) if path.is_file()]
    data.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    return [(d.pixel_array.astype(np.int32) - min(0, int(d.pixel_array.min()))).astype(np.uint16) for d in data]


def _synthetic(count: int) -> list[NDArray[np.uint16]]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = (x / 0.8) ** 2 + (y / 0.55) ** 2 < 1
    slices = []
    for n in range(count):
        lungs = ((abs(x) - 0.38) / (0.25 + 0.005 * n)) ** 2 + (y / 0.35) ** 2 < 1
        hu = np.where(body, np.where(lungs, -850.0, 40.0), -1000.0)
        noise = ndimage.gaussian_filter(rng.normal(size=hu.shape), 0.7) * 60 * np.where(body, 1.0, 0.2)
        slices.append(np.clip(ndimage.gaussian_filter(hu, 1.0) + noise + 1024, 0, 4095).astype(np.uint16))
    return slices


def write_series(folder: Path, slices: Sequence[NDArray[np.uint16]], count: int, kind: str) -> None:
    """`count` files: the slices in turn, shifted by a pixel each time round so that no two are equal."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

    root = "1.2.826.0.1.3680043.8.498.3"
    syntaxes = dict(zip(KINDS, (ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless, RLELossless), strict=True))
    folder.mkdir()
    for n in range(count):
        pixels = np.ascontiguousarray(np.roll(slices[n % len(slices)], n // len(slices), axis=1))
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if kind == "rle" else syntaxes[kind]
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{root}.3.{n + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{root}.1", f"{root}.2", f"{root}.4"
        data.PatientID, data.PatientName, data.StudyID, data.Modality = "bench", "bench", "1", "CT"
        data.StudyDate, data.StudyTime = "20200101", "120000"
        data.SeriesNumber, data.InstanceNumber, data.ImageType = 1, n + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-250, -250, n * 1.0]
        data.PixelSpacing, data.SliceThickness = [0.9765625, 0.9765625], 1.0
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        if kind in ("jpeg-ls", "jpeg-2000"):
            import imagecodecs

            if kind == "jpeg-ls":
                encoded = imagecodecs.jpegls_encode(pixels)
            else:
                encoded = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True)
            data.PixelData = encapsulate([encoded])
            data["PixelData"].VR = "OB"
        else:
            data.PixelData = pixels.tobytes()
            data["PixelData"].VR = "OW"
            if kind == "rle":
                data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(folder / f"IM{n:04d}.dcm", enforce_file_format=True)


# The contenders: each gives a job for a folder, or None where it is not installed.


def medseg(folder: Path, kind: str) -> Job:
    import medseg

    return lambda: medseg.read(folder)


def simpleitk(folder: Path, kind: str) -> Job | None:
    if importlib.util.find_spec("SimpleITK") is None:
        return None
    import SimpleITK as sitk

    def job() -> object:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
        return reader.Execute()

    return job


def dcm2niix(folder: Path, kind: str) -> Job | None:
    if importlib.util.find_spec("dcm2niix") is None:
        return None
    import dcm2niix

    out = folder.with_name(f"{folder.name}-dcm2niix")
    out.mkdir(exist_ok=True)

    def job() -> None:
        # -w 2: write over the file of the repeat before, which would otherwise be kept beside a new one.
        command = [dcm2niix.bin, "-z", "n", "-b", "n", "-w", "2", "-f", "out", "-o", str(out), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0 or not (out / "out.nii").exists():
            raise SystemExit(f"dcm2niix failed on {kind}: {done.stdout[-500:]}{done.stderr[-500:]}")

    return job


def _monai(folder: Path, kind: str, reader: str, needs: str) -> Job | None:
    if kind != "uncompressed" or any(importlib.util.find_spec(name) is None for name in ("monai", needs)):
        return None
    from monai.transforms import LoadImage

    with warnings.catch_warnings():
        # It announces decoders for GPUs that are not installed.
        warnings.simplefilter("ignore")
        load = LoadImage(reader=reader, image_only=True)
    return lambda: load(folder)


CONTENDERS: dict[str, Callable[[Path, str], Job | None]] = {
    "medseg": medseg,
    "SimpleITK": simpleitk,
    "dcm2niix": dcm2niix,
    "MONAI PydicomReader": lambda folder, kind: _monai(folder, kind, "PydicomReader", "pydicom"),
    "MONAI ITKReader": lambda folder, kind: _monai(folder, kind, "ITKReader", "itk"),
}
PACKAGES = {"MONAI PydicomReader": "monai", "MONAI ITKReader": "monai"}
MEASURED_MEMORY = ("medseg", "SimpleITK")


# The measurements


def measure(folder: Path, kind: str, repeats: int) -> dict[str, list[float]]:
    """Wall seconds of every repeat per contender; one repeat to warm up is thrown away."""
    jobs = {name: job for name, make in CONTENDERS.items() if (job := make(folder, kind)) is not None}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            result = job()
            stop = time.perf_counter()
            # Freeing the volume is not loading it.
            del result
            if repeat > 0:
                seconds[name].append(stop - start)
    return seconds


def check_equal(folder: Path, slices: Sequence[NDArray[np.uint16]]) -> None:
    """A fast reader that is wrong is not worth a figure: the voxels must be those that were written."""
    import medseg

    array = medseg.read(folder).array
    for k in range(array.shape[2]):
        expected = np.roll(slices[k % len(slices)], k // len(slices), axis=1).astype(np.int16) - 1024
        if not np.array_equal(array[:, :, k].T, expected):
            raise SystemExit(f"{folder.name}: slice {k} of medseg's volume is not what was written")


def extra_megabytes(name: str, folder: Path, kind: str) -> float | None:
    """Peak resident memory of one read in a fresh process, less what was resident before."""
    if CONTENDERS[name](folder, kind) is None:
        return None
    warm = folder.with_name(f"{folder.name}-one")
    warm.mkdir(exist_ok=True)
    first = sorted(folder.iterdir())[0]
    (warm / first.name).write_bytes(first.read_bytes())
    command = [sys.executable, __file__, "--memory-of", name, str(warm), str(folder), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _print_extra_megabytes(name: str, warm: Path, folder: Path, kind: str) -> None:
    make = CONTENDERS[name]
    for place in (warm, folder):
        job = make(place, kind)
        assert job is not None
        before = _resident_kilobytes("VmRSS")
        result = job()
        peak = _resident_kilobytes("VmHWM")
        del result
    print((peak - before) * 1024 / 1e6)


def _resident_kilobytes(field: str) -> int:
    # Not getrusage: its peak is inherited from the parent process.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise SystemExit("extra memory is measured from /proc, which only Linux has")


def report(folder: Path, kind: str, repeats: int, volume_megabytes: float) -> None:
    """The table of one kind of series, row by row."""
    seconds = measure(folder, kind, repeats)
    ours = statistics.median(seconds["medseg"])
    for name, values in seconds.items():
        version = importlib.metadata.version(PACKAGES.get(name, name))
        share, target = ours / statistics.median(values), TARGETS.get((kind, name))
        verdict = "" if name == "medseg" else f"{share:9.2f} x"
        if target is not None:
            verdict += f"  {'<=' if share <= target else '> '} {target:.2f} {'met' if share <= target else 'MISSED'}"
        memory = extra_megabytes(name, folder, kind) if name in MEASURED_MEMORY else None
        extra = "" if memory is None else f"{memory:7.0f} MB"
        if name == "medseg" and memory is not None:
            limit = MEMORY_TARGET * volume_megabytes
            verdict = f"extra memory {'<=' if memory <= limit else '> '} {limit:.0f} MB " + (
                "met" if memory <= limit else "MISSED"
            )
        print(
            f"{kind:13s} {name + ' ' + version:32s} {1e3 * statistics.median(values):8.0f} ms "
            f"{1e3 * min(values):8.0f} ms {extra:>10s}  {verdict}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Loading a DICOM series side by side.")
    parser.add_argument("--source", type=Path, help="folder of DICOM slices to repeat; synthetic slices without it")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        name, warm, folder, kind = options.memory_of
        _print_extra_megabytes(name, Path(warm), Path(folder), kind)
        return
    slices = source_slices(options.source)
    rows, columns = slices[0].shape
    megabytes = options.slices * rows * columns * 2 / 1e6
    print(f"{options.slices} slices of {columns}x{rows}, int16 {megabytes:.0f} MB, {os.cpu_count()} cores")
    print(f"{'series':13s} {'reader':32s} {'median':>11s} {'fastest':>11s} {'extra':>10s}  {'medseg takes':>11s}")
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as temporary:
        for kind in options.kinds:
            folder = Path(temporary) / kind
            write_series(folder, slices, options.slices, kind)
            check_equal(folder, slices)
            report(folder, kind, options.repeats, megabytes)


if __name__ == "__main__":
    main()
