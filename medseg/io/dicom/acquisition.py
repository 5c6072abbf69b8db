"""How a series was acquired: scanner, reconstruction kernel and slice thickness, from its headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from medseg.io.dicom.series import scan

__all__ = ["acquisition_of"]

_TAGS = ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel")
_LONGEST = 64


def acquisition_of(source: Path, series_uid: str = "") -> dict[str, str]:
    """'scanner', 'kernel' and 'slice thickness' (in mm) of a DICOM series, as far as its headers state them.

    Args:
        source: a DICOM file or folder; {} for anything else.
        series_uid: SeriesInstanceUID of one of several series; '': the one with most images.

    Source: DICOM PS3.3, C.7.5.1 (Manufacturer, Manufacturer's Model Name), C.8.2.1 and C.8.15.3.5 (Convolution Kernel),
    C.7.6.2 (Slice Thickness). Serial numbers and the names of stations and sites are not read.
    """
    found = [each for each in scan(source).series if not series_uid or each.uid == series_uid]
    if not found:
        return {}
    first = max(found, key=lambda each: len(each.slices)).slices[0]
    result = {}
    if first.path.is_file():
        texts = _texts(first.path)
        maker, model = texts.get("Manufacturer", ""), texts.get("ManufacturerModelName", "")
        result["scanner"] = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
        result["kernel"] = texts.get("ConvolutionKernel", "")
    if first.thickness > 0:
        result["slice thickness"] = f"{first.thickness:g}"
    return {name: value for name, text in result.items() if (value := text.strip())}


def _texts(path: Path) -> dict[str, str]:
    tags = [*_TAGS, "SharedFunctionalGroupsSequence"]
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except (OSError, InvalidDicomError):
        return {}
    texts: dict[str, str] = {}
    for part in _parts(dataset):
        for tag in _TAGS:
            value = part.get(tag)
            if value and tag not in texts:
                parts = [value] if isinstance(value, str) else value
                texts[tag] = "".join(c for c in " ".join(map(str, parts)) if c.isprintable())[:_LONGEST]
    return texts


def _parts(dataset: Any) -> Iterator[Any]:
    """The data set, and the items of an enhanced object's shared functional groups."""
    yield dataset
    for group in dataset.get("SharedFunctionalGroupsSequence") or ():
        for element in group:
            if element.VR == "SQ" and element.value:
                yield element.value[0]
