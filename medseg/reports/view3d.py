"""A 3D view of one case for the report: NiiVue's script, which the user brings, and small copies of image and masks."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medseg.errors import ConfigError
from medseg.volume import Volume

__all__ = ["Layer", "View3D", "layers_of", "niivue_script"]

# Voxels along the longest axis: half a megabyte for an image.
LONGEST = 128
_LARGEST_SCRIPT = 20 * 2**20


@dataclass(frozen=True, slots=True)
class Layer:
    """A volume of the view: a `.nii.gz` of uint8, `colour` as '#rrggbb' at its highest value, '' for grey."""

    name: str
    colour: str
    opacity: float
    content: bytes

    @property
    def base64(self) -> str:
        """The content for the page."""
        return base64.b64encode(self.content).decode("ascii")


@dataclass(frozen=True, slots=True)
class View3D:
    """Everything of the view; `script` is NiiVue's, safe inside a script element."""

    title: str
    script: str
    layers: tuple[Layer, ...]


def niivue_script(path: Path) -> str:
    """NiiVue (https://niivue.com, BSD-2) as one classic script: `dist/niivue.umd.js` of the npm package.

    Raises:
        ConfigError: for a file that cannot be read or is something else.
    """
    try:
        if path.stat().st_size > _LARGEST_SCRIPT:
            raise ConfigError(f"{path} is too large for NiiVue; expected dist/niivue.umd.js of @niivue/niivue")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ConfigError(f"{path} cannot be read as a script ({reason})") from None
    if "NVImage" not in text or "<html" in text[:1000].lower():
        raise ConfigError(f"{path} is not NiiVue; expected dist/niivue.umd.js of the npm package @niivue/niivue")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def layers_of(
    image: Volume | None, reference: Volume, prediction: Volume, colours: tuple[str, str]
) -> tuple[Layer, ...]:
    """The image faint, and all labels of reference and prediction in one colour each.

    Args:
        image: on the reference's grid, with or without channels; None leaves it out.
        reference, prediction: label maps (I, J, K) on one grid.
        colours: of reference and prediction.
    """
    step = max(1, -(-max(reference.shape) // LONGEST))
    affine = reference.affine @ np.diag([step, step, step, 1.0])
    layers = []
    if image is not None:
        grey = (image.array[0] if image.channels else image.array)[(slice(None, None, step),) * 3].astype(np.float32)
        low, high = np.percentile(grey, [1, 99])
        shown = np.clip((grey - low) / max(high - low, 1e-6) * 255, 0, 255)
        layers.append(Layer("image", "", 0.25, _nifti(shown, affine)))
    for name, colour, labels in (("reference", colours[0], reference), ("prediction", colours[1], prediction)):
        layers.append(Layer(name, colour, 0.6, _nifti(255 * _any_in_block(labels.array, step), affine)))
    return tuple(layers)


def _any_in_block(labels: NDArray[Any], step: int) -> NDArray[np.bool_]:
    """Whether any voxel of a block is labelled: thin vessels must not fall between."""
    held = labels > 0
    for axis, n in enumerate(held.shape):
        held = np.logical_or.reduceat(held, np.arange(0, n, step), axis=axis)
    return held


def _nifti(array: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    stored = nib.Nifti1Image(array.astype(np.uint8), affine)
    return gzip.compress(stored.to_bytes(), mtime=0)
