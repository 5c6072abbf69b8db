"""Memory of whole `medseg predict` runs on DICOM studies, a section of `python benchmarks/inference.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPACING_MM = (0.8, 0.8, 1.0)
LARGEST_GB = 2.5
# name -> slices' size, slices, studies
STUDIES = {"300 slices": (512, 300, 1), "1,200 slices": (512, 1200, 1), "20 studies": (256, 150, 20)}


def chest(size: int, slices: int) -> NDArray[np.int16]:
    """A phantom's chest in HU, enlarged, mirrored upwards as often as needed, with a scanner's noise."""
    from medseg.phantoms import make_phantom
    from medseg.resampling import resample_array

    image, _ = make_phantom(0)
    once = resample_array(image.array[None], (size, size, 300), order=1)[0]
    turned = [once if n % 2 == 0 else once[:, :, ::-1] for n in range(-(-slices // 300))]
    array = np.concatenate(turned, axis=2)[:, :, :slices]
    noise = np.random.default_rng(0).normal(0, 12, (size, size, 8))
    for k in range(slices):
        array[:, :, k] += noise[:, :, k % 8]
    return np.clip(np.rint(array), -1024, 3071).astype(np.int16)


def write_study(folder: Path, array: NDArray[np.int16], number: int) -> None:
    """One uncompressed CT series."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    root = f"1.2.826.0.1.3680043.8.498.4.{number + 1}"
    folder.mkdir(parents=True)
    for n in range(array.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{root}.3.{n + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{root}.1", f"{root}.2", f"{root}.4"
        data.PatientID, data.PatientName, data.StudyID, data.Modality = f"b{number}", f"b{number}", "1", "CT"
        data.StudyDate, data.StudyTime = "20200101", "120000"
        data.SeriesNumber, data.InstanceNumber, data.ImageType = 1, n + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-200, -200, n * SPACING_MM[2]]
        data.PixelSpacing, data.SliceThickness = list(SPACING_MM[:2]), SPACING_MM[2]
        data.Columns, data.Rows = array.shape[:2]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = np.ascontiguousarray(array[:, :, n].T).tobytes()
        data["PixelData"].VR = "OW"
        data.save_as(folder / f"IM{n:04d}.dcm", enforce_file_format=True)


def memory(model: Path, names: list[str], image: Path | None) -> None:
    """Print the peaks of `medseg predict`, and what is held after each study.

    Args:
        model: a bundle.
        names: of `STUDIES`.
        image: a CT to be enlarged instead of the phantom.
    """
    for name in names:
        size, slices, studies = STUDIES[name]
        with tempfile.TemporaryDirectory() as where:
            folder = Path(where)
            array = chest(size, slices) if image is None else enlarged(image, size, slices)
            for number in range(studies):
                write_study(folder / "in" / f"study{number:02d}", array, number)
            del array
            peak, held, seconds = predict(model, folder / "in", folder / "out", studies)
        print(f"{name} of {size}x{size}: peak {peak:.2f} GB (target {LARGEST_GB} for 300), {seconds:.0f} s", flush=True)
        if studies > 1:
            print("    held after each study, MB: " + " ".join(f"{1000 * each:.0f}" for each in held), flush=True)


def enlarged(image: Path, size: int, slices: int) -> NDArray[np.int16]:
    """A real CT on another grid, mirrored upwards every 300 slices."""
    import medseg
    from medseg.resampling import resample_array

    once = resample_array(medseg.read(image).array[None].astype(np.float32), (size, size, 300), order=1)[0]
    turned = [once if n % 2 == 0 else once[:, :, ::-1] for n in range(-(-slices // 300))]
    return np.rint(np.concatenate(turned, axis=2)[:, :, :slices]).astype(np.int16)


def predict(model: Path, studies: Path, out: Path, count: int) -> tuple[float, list[float], float]:
    """Peak in GB, what was held as each line of the ledger appeared, and seconds."""
    command = [sys.executable, "-m", "medseg", "predict", str(model), str(studies), "-o", str(out), "--device", "cpu"]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ))
    peak, held = 0.0, []
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, _gigabytes(status, "VmHWM"))
        ledger = out / "ledger.jsonl"
        done = ledger.read_bytes().count(b"\n") if ledger.is_file() else 0
        held += [_gigabytes(status, "VmRSS")] * (done - len(held))
        time.sleep(0.02)
    answer = process.stdout.read().decode() if process.stdout else ""
    if process.returncode or len(held) < count:
        raise SystemExit(f"medseg predict: exit code {process.returncode}\n{answer[-2000:]}")
    return peak, held, time.monotonic() - started


def _gigabytes(status: str, field: str) -> float:
    found = [line.split()[1] for line in status.splitlines() if line.startswith(field)]
    return int(found[0]) * 1024 / 1e9 if found else 0.0
