"""The spacing that ImageJ and OME write into TIFF files; the print resolution of other files is none."""

from __future__ import annotations

import re
from typing import Any

from medseg.io.plausible import spacing_fault

__all__ = ["tiff_spacing"]

_IN_MM = {
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer", "micrometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("inch", "in"), 25.4),
    **dict.fromkeys(("m", "meter", "metre"), 1e3),
}


def tiff_spacing(tiff: Any, axes: str) -> tuple[float, ...]:
    """The spacing along x and y, and along z for a stack of slices, in mm.

    Args:
        tiff: an open `tifffile.TiffFile`.
        axes: of its first series, one letter each, as tifffile names them.

    Returns:
        Two or three numbers; () if the file does not say all that its axes need, or says something impossible.
    """
    if tiff.ome_metadata:
        found = _of_ome(tiff.ome_metadata)
    elif tiff.imagej_metadata:
        found = _of_imagej(tiff.imagej_metadata, tiff.pages[0])
    else:
        return ()
    # Frames (T), and pages without a meaning, have no spacing.
    others = [axis for axis in axes if axis not in "YXSC"]
    spacing = found[:2] if not others else found if others == ["Z"] else ()
    if not all(spacing) or spacing_fault(spacing):
        return ()
    return spacing


def _of_imagej(metadata: dict[str, Any], page: Any) -> tuple[float, ...]:
    factor = _factor(metadata.get("unit", ""))
    per_unit = [_ratio(page.tags, name) for name in ("XResolution", "YResolution")]
    if not factor or not all(per_unit):
        return ()
    step = metadata.get("spacing", 0.0)
    depth = abs(float(step)) if isinstance(step, int | float) else 0.0
    return (factor / per_unit[0], factor / per_unit[1], factor * depth)


def _ratio(tags: Any, name: str) -> float:
    tag = tags.get(name)
    above, below = tag.value if tag is not None else (0, 1)
    return float(above) / float(below) if below else 0.0


def _of_ome(xml: str) -> tuple[float, ...]:
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    words = dict(re.findall(r"(\w+)\s*=\s*\"([^\"]*)\"", pixels[0])) if pixels else {}
    found = []
    for axis in "XYZ":
        try:
            size = float(words.get(f"PhysicalSize{axis}", 0))
        except ValueError:
            size = 0.0
        # Micrometres unless the file says something else (OME schema).
        found.append(size * _factor(words.get(f"PhysicalSize{axis}Unit", "\u00b5m")))
    return tuple(found)


def _factor(unit: Any) -> float:
    """Millimetres per unit, 0 for a pixel and for units that are not known."""
    text = str(unit).replace("\\u00B5", "\u00b5").strip()
    return _IN_MM.get(text.lower(), 0.0)
