"""Bodies of ellipsoids in Hounsfield units, with organs that lie on one side, on both, or in the middle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medseg.geometry import reorient
from medseg.volume import Volume

# Centre and radii in mm, x to the patient's right, y anterior, z superior, and Hounsfield units.
ORGANS = {
    "right lung": ((75, 0, 70), (45, 75, 90), -800),
    "left lung": ((-75, 0, 70), (42, 75, 88), -800),
    "liver": ((55, 10, -60), (75, 70, 60), 60),
    "spleen": ((-95, -30, -50), (32, 30, 45), 50),
    "heart": ((-20, 20, 45), (48, 45, 50), 45),
    "right kidney": ((55, -55, -140), (26, 26, 50), 30),
    "left kidney": ((-55, -55, -128), (27, 26, 52), 30),
    "bladder": ((0, 20, -200), (35, 30, 30), 10),
    "right femur": ((95, 0, -205), (25, 25, 30), 300),
    "left femur": ((-95, 0, -205), (25, 25, 30), 300),
    "upper vertebra": ((0, -70, 30), (22, 20, 13), 150),
    "lower vertebra": ((0, -70, -5), (23, 21, 13), 150),
}
SPACING = (7.0, 8.0, 9.0)
SHAPE = (52, 34, 58)


def body(
    seed: int, labels: Mapping[str, int], orientation: str = "RAS", mirrored: bool = False
) -> tuple[Volume, Volume]:
    """A body's image `(1, ...)` and label map: organs vary in place, size and grey level, the body lies off the middle.

    Args:
        seed: of what varies.
        labels: name in `ORGANS` -> value.
        orientation: of the arrays.
        mirrored: whether the label map has left and right the wrong way round, organs staying where they are.
    """
    rng = np.random.default_rng([seed, 17])
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -np.multiply(SPACING, SHAPE) / 2 + (rng.uniform(-12, 12), 0, rng.uniform(-10, 10))
    affine[2, 3] -= 50
    x, y, z = np.moveaxis(np.indices(SHAPE, dtype=np.float32), 0, -1).reshape(-1, 3).T.reshape(3, *SHAPE)
    mm = [affine[n, n] * axis + affine[n, 3] for n, axis in enumerate((x, y, z))]
    image = np.full(SHAPE, -1000.0, np.float32)
    image[(mm[0] / 150) ** 2 + (mm[1] / 115) ** 2 < 1] = 40 + rng.normal(0, 5)
    label_map = np.zeros(SHAPE, np.uint8)
    for name, (centre, radii, hu) in ORGANS.items():
        place = np.add(centre, rng.normal(0, 5, 3))
        size = np.multiply(radii, rng.normal(1, 0.05, 3))
        inside = sum(((m - p) / r) ** 2 for m, p, r in zip(mm, place, size, strict=True)) < 1
        image[inside] = hu + rng.normal(0, 6)
        label_map[inside] = labels.get(_other(name) if mirrored else name, 0)
    image += rng.normal(0, 15, SHAPE).astype(np.float32)
    seen = Volume(np.round(image)[None], affine, channels=1)
    return reorient(seen, orientation), reorient(Volume(label_map, affine), orientation)


def _other(name: str) -> str:
    side, _, rest = name.partition(" ")
    return {"left": f"right {rest}", "right": f"left {rest}"}.get(side, name)
