"""NIfTI-1 and NIfTI-2, single files, plain or gzipped.

Header by nibabel, voxels straight from the buffer. The affine is the sform where its code is set, else the qform.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError, WriteError
from medseg.io.atomic import atomic_path
from medseg.volume import Finding, Metadata, Volume

__all__ = ["read_nifti", "write_nifti"]

Array = NDArray[Any]
_SCANNER = 1
_MILLIMETRES = {"meter": 1e3, "micron": 1e-3}


def read_nifti(path: Path) -> Volume:
    """A NIfTI file as it lies on disk, with scaling applied.

    Integers stay integers unless the header scales them by a fraction. A fourth (or fifth) axis becomes leading
    channels; a file with two axes gives a 2D volume.

    Raises:
        ReadError: truncated or damaged file, no usable affine, complex numbers, or more axes than channels explain.
    """
    raw = _bytes_of(path)
    header = _header_of(raw, path)
    array, channels = _channels_first(_stored_values(raw, header, path), path)
    array = _scaled(array, header)
    affine, known, findings = _affine_of(header, path)
    return Volume(array, affine, channels, Metadata(source=str(path)), findings, spacing_known=known)


def _bytes_of(path: Path) -> bytes:
    from isal import igzip, isal_zlib

    decompress: Any = igzip.decompress
    damaged: Any = (EOFError, isal_zlib.error, igzip.BadGzipFile)

    try:
        raw = path.read_bytes()
        # The magic number decides, as files are often named .nii.gz without being compressed, and the reverse.
        return bytes(decompress(raw)) if raw[:2] == b"\x1f\x8b" else raw
    except damaged as error:
        raise ReadError(f"{path} is damaged or cut short ({error}); copy or download it again") from None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None


def _header_of(raw: bytes, path: Path) -> Any:
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    sizes = {int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")}
    if not sizes & {348, 540}:
        raise ReadError(f"{path} is not a NIfTI file: its header does not begin with 348 or 540; check what it is")
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
    try:
        return kind.from_fileobj(BytesIO(raw))
    except (HeaderDataError, WrapStructError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReadError(f"{path} has a damaged NIfTI header ({reason}); convert or download it again") from None


def _stored_values(raw: bytes, header: Any, path: Path) -> Array:
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    offset, count = int(header.get_data_offset()), int(np.prod(shape, dtype=np.int64))
    if len(shape) < 2 or min(shape) < 1:
        raise ReadError(f"{path} has shape {shape}: expected at least two axes, none of them empty")
    if dtype.kind == "c":
        raise ReadError(f"{path} holds complex numbers; write their magnitude into a file of its own first")
    if len(raw) < offset + count * dtype.itemsize:
        raise ReadError(
            f"{path} is cut short: its header promises {count * dtype.itemsize} bytes of voxels, "
            f"{max(len(raw) - offset, 0)} are there; copy or download it again"
        )
    array: Array = np.frombuffer(raw, dtype, count, offset).reshape(shape, order="F")
    if dtype.names:
        # RGB and RGBA voxels; alpha carries no anatomy.
        return np.stack([array[name] for name in ("R", "G", "B")], axis=-1)
    if dtype.kind == "f" and dtype.itemsize > 8:
        return array.astype(np.float64)
    if not dtype.isnative or not array.flags.aligned:
        return array.astype(dtype.newbyteorder("="))
    return array


def _channels_first(array: Array, path: Path) -> tuple[Array, int]:
    if array.ndim <= 3:
        return array, 0
    extra = [n for n in array.shape[3:] if n > 1]
    if len(extra) > 1:
        raise ReadError(f"{path} has shape {array.shape}: at most one axis of channels is understood; split it first")
    if not extra:
        return array.reshape(array.shape[:3], order="F"), 0
    return np.moveaxis(array.reshape((*array.shape[:3], extra[0]), order="F"), -1, 0), extra[0]


def _scaled(array: Array, header: Any) -> Array:
    slope, inter = header.get_slope_inter()
    slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
    if (slope, inter) == (1.0, 0.0):
        return array
    if array.dtype.kind in "iu" and slope.is_integer() and inter.is_integer():
        ends = [int(v) * int(slope) + int(inter) for v in (array.min(), array.max())]
        for dtype in (array.dtype, np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64)):
            info = np.iinfo(dtype)
            if info.min <= min(ends) and max(ends) <= info.max:
                return (array.astype(np.int64) * int(slope) + int(inter)).astype(dtype)
    # Doubles first: a slope of 2.3e-10 on 32-bit integers loses the labels in single precision.
    scaled = array.astype(np.float64)
    scaled *= slope
    scaled += inter
    return scaled if array.dtype == np.float64 else scaled.astype(np.float32)


def _affine_of(header: Any, path: Path) -> tuple[NDArray[np.float64], bool, tuple[Finding, ...]]:
    from nibabel.spatialimages import HeaderDataError

    findings = []
    candidates: dict[str, NDArray[np.float64]] = {}
    try:
        if int(header["sform_code"]) > 0:
            candidates["sform"] = header.get_sform()
        if int(header["qform_code"]) > 0:
            candidates["qform"] = header.get_qform()
    except (HeaderDataError, ValueError) as error:
        findings.append(Finding("damaged_qform", f"the qform of {path} cannot be used: {error}", (str(path),)))
    usable = {name: affine for name, affine in candidates.items() if _is_usable(affine)}
    known = True
    if usable:
        name, affine = next(iter(usable.items()))
        if name != "sform" and "sform" in candidates:
            findings.append(
                Finding("damaged_sform", f"the sform of {path} is singular; its qform is used", (str(path),))
            )
        if len(usable) == 2:
            size = np.array([*header.get_data_shape()[:3], 1, 1])[:3]
            apart = float(np.abs((usable["sform"] - usable["qform"]) @ np.diag([*size, 1.0])).max())
            if apart > 0.5:
                text = f"sform and qform of {path} differ by up to {apart:.2f} mm; the sform is used"
                findings.append(Finding("sform_qform_differ", text, (str(path),)))
    elif candidates:
        raise ReadError(f"{path} has a singular {' and '.join(candidates)}: no position in the patient can be found")
    else:
        zooms = np.array([*map(float, header.get_zooms()), 1.0, 1.0])[:3]
        if not (np.isfinite(zooms).all() and (zooms > 0).all()):
            raise ReadError(f"{path} has no orientation and a spacing of {tuple(zooms)}; expected positive numbers")
        affine = np.diag([*zooms, 1.0])
        known = bool((zooms != 1).any()) or int(header["xyzt_units"]) & 7 != 0
        text = (
            f"{path} does not say how it lies in the patient (sform_code and qform_code are 0); its axes are taken "
            "as right, anterior, superior"
        )
        if known:
            findings.append(Finding("no_orientation", text, (str(path),)))
    unit = {1: "meter", 3: "micron"}.get(int(header["xyzt_units"]) & 7)
    if unit:
        affine = np.diag([*[_MILLIMETRES[unit]] * 3, 1.0]) @ affine
        findings.append(Finding("unit", f"{path} is in {unit}s; converted to mm", (str(path),)))
    return np.asarray(affine, dtype=np.float64), known, tuple(findings)


def _is_usable(affine: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(affine).all()) and abs(float(np.linalg.det(affine))) > 1e-12


def write_nifti(volume: Volume, path: Path) -> None:
    """Write `.nii` or `.nii.gz`; the same volume gives the same bytes on every run.

    Channels become the fourth axis. Volumes without a known spacing get no orientation code and no unit.

    Raises:
        WriteError: disk full, no permission, or a dtype that NIfTI does not hold.
    """
    import nibabel as nib

    array = np.moveaxis(volume.array, 0, -1) if volume.channels else volume.array
    if volume.channels and volume.dims == 2:
        array = array[:, :, None, :]
    dtype = _writable_dtype(array, path)
    kind: Any = nib.Nifti1Header if max(array.shape) < 2**15 else nib.Nifti2Header
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape(array.shape)
    header.set_slope_inter(1.0, 0.0)
    zooms = (*volume.spacing_mm, 1.0, 1.0)[: min(array.ndim, 3)]
    header.set_zooms((*zooms, *[1.0] * (array.ndim - len(zooms))))
    if volume.spacing_known:
        header.set_xyzt_units("mm")
        header.set_sform(volume.affine, _SCANNER)
        gram = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
        # A quaternion cannot hold shear, so a sheared grid is left to the sform alone.
        if np.allclose(gram.T @ gram, np.eye(3), atol=1e-4):
            header.set_qform(volume.affine, _SCANNER)
    head = BytesIO()
    header.write_to(head)
    start = head.getvalue().ljust(
        int(header.get_data_offset()) or (540 if kind is nib.Nifti2Header else 348) + 4, b"\0"
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if not path.name.lower().endswith(".gz"):
            _write_voxels(file, start, array, dtype)
            return
        from isal import igzip

        # No name and no time in the gzip header: equal volumes must give equal bytes.
        gzip_file: Any = igzip.IGzipFile
        with gzip_file(filename="", mode="wb", compresslevel=2, fileobj=file, mtime=0) as zipped:
            _write_voxels(zipped, start, array, dtype)


def _write_voxels(file: Any, start: bytes, array: Array, dtype: np.dtype[Any]) -> None:
    file.write(start)
    # Slab by slab along the slowest axis, so that no second copy of a large volume is made.
    for slab in np.moveaxis(array, -1, 0):
        file.write(np.ascontiguousarray(slab.T, dtype=dtype).tobytes())


def _writable_dtype(array: Array, path: Path) -> np.dtype[Any]:
    if array.dtype == bool:
        return np.dtype(np.uint8)
    if array.dtype == np.float16:
        return np.dtype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size:
        # Many viewers do not open 64-bit integers.
        fits = array.min() >= np.iinfo(np.int32).min and array.max() <= np.iinfo(np.int32).max
        return np.dtype(np.int32) if fits else array.dtype
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise WriteError(f"cannot write {path}: NIfTI does not hold {array.dtype}; convert the array first")
    return array.dtype.newbyteorder("=")
