"""Loading and saving a CT as `.nii.gz` side by side: medseg, nibabel, SimpleITK, MONAI, in one run on a warm cache.

    python benchmarks/nifti.py [--data FOLDER] [--repeats 5] [--slices 300]

A volume of 300 slices of 512x512 int16 HU: the slices of `--data` (a folder of DICOM slices) repeated and shifted, or
synthetic ones. Contenders alternate repeat by repeat; the figure is the median wall time of file -> array in memory,
or volume -> file on a RAM disk, without the import of packages. All load the same file, written by nibabel. Extra
memory is the peak of the resident set in a fresh process, less what was resident before. Packages that are not
installed are left out.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
from loading import RAM_DISK, _resident_kilobytes, source_slices
from numpy.typing import NDArray

Job = Callable[[], object]
Array = NDArray[np.int16]
# Largest share of the other's wall time that issue 3, row B4, allows.
TARGETS = {("load", "nibabel"): 1.0, ("save", "nibabel"): 1 / 3}
PACKAGES = {"medseg": "medseg", "nibabel": "nibabel", "SimpleITK": "SimpleITK", "MONAI": "monai"}
AFFINE = np.diag([0.9765625, 0.9765625, 1.0, 1.0])


def make_volume(source: Path | None, count: int) -> Array:
    """`(512, 512, count)` HU, first axis fastest, as readers hand it out."""
    slices = source_slices(source)
    rows, columns = slices[0].shape
    array = np.empty((columns, rows, count), np.int16, order="F")
    for k in range(count):
        array[:, :, k] = np.roll(slices[k % len(slices)], k // len(slices), axis=1).T.astype(np.int16) - 1024
    return array


# The contenders: each gives a job, with its package imported.


def load_job(name: str, path: Path) -> Job:
    if name == "medseg":
        import medseg

        return lambda: medseg.read(path)
    if name == "nibabel":
        import nibabel as nib

        return lambda: np.asanyarray(nib.load(path).dataobj)
    if name == "SimpleITK":
        import SimpleITK as sitk

        return lambda: sitk.ReadImage(str(path))
    import monai.transforms

    with warnings.catch_warnings():
        # It announces decoders for GPUs that are not installed.
        warnings.simplefilter("ignore")
        load = monai.transforms.LoadImage(image_only=True)
    return lambda: load(path)


def save_job(name: str, array: Array, path: Path) -> Job:
    if name == "medseg":
        import medseg
        from medseg.volume import Volume

        volume = Volume(array, AFFINE)
        return lambda: medseg.write(volume, path)
    if name == "nibabel":
        import nibabel as nib

        return lambda: nib.save(nib.Nifti1Image(array, AFFINE), path)
    if name == "SimpleITK":
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array.T)
        return lambda: sitk.WriteImage(image, str(path))
    import monai.data
    import torch

    tensor = torch.from_numpy(array)

    def job() -> None:
        writer = monai.data.NibabelWriter(output_dtype=np.int16)
        writer.set_data_array(tensor, channel_dim=None)
        writer.set_metadata({"affine": AFFINE, "original_affine": AFFINE}, resample=False)
        writer.write(path)

    return job


def alternate(jobs: dict[str, Job], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of every repeat per contender; one repeat to warm up is thrown away."""
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


def extra_megabytes(what: str, name: str, folder: Path) -> float:
    """Peak resident memory of one load or save in a fresh process, less what was resident before."""
    command = [sys.executable, __file__, "--memory-of", what, name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _print_extra_megabytes(what: str, name: str, folder: Path) -> None:
    # A small file first, so that what is imported on the first call does not count.
    small = np.zeros((8, 8, 8), np.int16, order="F")
    save_job(name, small, folder / "small.nii.gz")()
    load_job(name, folder / "small.nii.gz")()
    array = np.load(folder / "ct.npy") if what == "save" else small
    job = load_job(name, folder / "ct.nii.gz") if what == "load" else save_job(name, array, folder / "memory.nii.gz")
    before = _resident_kilobytes("VmRSS")
    result = job()
    peak = _resident_kilobytes("VmHWM")
    del result
    print(max(peak - before, 0) * 1024 / 1e6)


def check(array: Array, folder: Path) -> None:
    """A fast file that is wrong is not worth a figure: voxels must come back, to nibabel too, in the same bytes."""
    import nibabel as nib

    import medseg
    from medseg.volume import Volume

    saved = (folder / "medseg.nii.gz").read_bytes()
    medseg.write(Volume(np.ascontiguousarray(array), AFFINE), folder / "again.nii.gz")
    right = (
        np.array_equal(medseg.read(folder / "ct.nii.gz").array, array)
        and np.array_equal(np.asanyarray(nib.load(folder / "medseg.nii.gz").dataobj), array)
        and saved == (folder / "again.nii.gz").read_bytes()
    )
    if not right:
        raise SystemExit("medseg's volume or file is not what was written")


def report(what: str, seconds: dict[str, list[float]], folder: Path) -> None:
    """The table of loading or saving, row by row."""
    ours = statistics.median(seconds["medseg"])
    for name, values in seconds.items():
        share, target = ours / statistics.median(values), TARGETS.get((what, name))
        verdict = "" if name == "medseg" else f"{share:9.2f} x"
        if target is not None:
            verdict += f"  {'<=' if share <= target else '> '} {target:.2f} {'met' if share <= target else 'MISSED'}"
        file = folder / f"{name}.nii.gz" if what == "save" else folder / "ct.nii.gz"
        title = f"{name} {importlib.metadata.version(PACKAGES[name])}"
        times = f"{1e3 * statistics.median(values):7.0f} ms {1e3 * min(values):7.0f} ms"
        sizes = f"{extra_megabytes(what, name, folder):7.0f} MB {file.stat().st_size / 1e6:7.1f} MB"
        print(f"{what:5s} {title:20s} {times} {sizes}  {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Loading and saving .nii.gz side by side.")
    parser.add_argument("--data", type=Path, help="folder of DICOM slices to repeat; synthetic slices without it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        what, name, folder = options.memory_of
        _print_extra_megabytes(what, name, Path(folder))
        return
    names = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is not None]
    array = make_volume(options.data, options.slices)
    print(f"{array.shape} int16, {array.nbytes / 1e6:.0f} MB, {os.cpu_count()} cores")
    print(
        f"{'':5s} {'package':20s} {'median':>10s} {'fastest':>10s} {'extra':>10s} {'file':>10s}  {'medseg takes':>11s}"
    )
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as temporary:
        folder = Path(temporary)
        np.save(folder / "ct.npy", array)
        save_job("nibabel", array, folder / "ct.nii.gz")()
        loads = {name: load_job(name, folder / "ct.nii.gz") for name in names}
        report("load", alternate(loads, options.repeats), folder)
        saves = {name: save_job(name, array, folder / f"{name}.nii.gz") for name in names}
        report("save", alternate(saves, options.repeats), folder)
        check(array, folder)


if __name__ == "__main__":
    main()
