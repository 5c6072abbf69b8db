"""Synthetic chest CT, drawn from ellipsoids, tubes and filtered noise. No patient is in it.

A body of fat, muscle, ribs, spine, heart and liver contains two lungs with branching vessels and one tumour. Tumour,
vessels, heart and chest wall share their Hounsfield units, and so do lung, mattress and the rim of the skin, so that
no threshold separates them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.volume import Metadata, Volume

__all__ = ["LUNG", "TUMOUR", "make_phantom", "smooth_noise"]

Field = NDArray[np.floating[Any]]
Point = Sequence[float] | NDArray[np.float64]

LUNG, TUMOUR = 1, 2


@dataclass
class _Canvas:
    """Hounsfield units at voxel centres; x to the patient's left, y posterior, z superior, in mm from the middle."""

    x: Field
    y: Field
    z: Field
    hu: Field
    blur_mm: float

    def distance(self, center: Point, radii: Point) -> Field:
        """Signed distance to an ellipsoid, negative inside (Inigo Quilez' first-order estimate)."""
        squares = [((p - c) / r) ** 2 for p, c, r in zip((self.x, self.y, self.z), center, radii, strict=True)]
        slopes = [s / r**2 for s, r in zip(squares, radii, strict=True)]
        near = np.sqrt(np.sum(squares, axis=0))
        return np.asarray(near * (near - 1) / np.sqrt(np.sum(slopes, axis=0) + 1e-9))

    def to_segment(self, start: Point, stop: Point) -> Field:
        """Distance to the straight line between two points."""
        axis = np.subtract(stop, start)
        delta = [p - s for p, s in zip((self.x, self.y, self.z), start, strict=True)]
        along = np.clip(sum(d * a for d, a in zip(delta, axis, strict=True)) / float(axis @ axis), 0, 1)
        return np.asarray(np.sqrt(sum((d - along * a) ** 2 for d, a in zip(delta, axis, strict=True))))

    def cover(self, distance: Field) -> Field:
        """Share of each voxel that lies inside a surface at this signed distance: the partial volume."""
        return np.asarray(np.clip(0.5 - distance / self.blur_mm, 0, 1))

    def paint(self, share: Field, hu: float | Field) -> None:
        self.hu += share * (hu - self.hu)


def make_phantom(seed: int) -> tuple[Volume, Volume]:
    """One synthetic chest CT and its labels; the same seed gives the same bytes.

    Args:
        seed: any non-negative integer; shape, spacing, anatomy, noise and the tumour's place follow from it.

    Returns:
        The image (int16, Hounsfield units, even numbers, about 64 x 64 x 40 voxels of about 5 x 5 x 6 mm, axes LPS)
        and the label map on the same grid (uint8: 1 both lungs with their vessels, 2 tumour).

    Example:
        >>> image, labels = make_phantom(0)
        >>> image.orientation, str(image.array.dtype), np.unique(labels.array).tolist()
        ('LPS', 'int16', [0, 1, 2])
    """
    rng = np.random.default_rng([seed, 0x6D656473])
    shape = (int(rng.integers(60, 67)), int(rng.integers(58, 65)), int(rng.integers(37, 43)))
    pixel_mm, slice_mm = float(rng.uniform(4.7, 5.3)), float(rng.uniform(5.6, 6.4))
    spacing = (pixel_mm, pixel_mm, slice_mm)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.subtract(shape, 1) / 2) + rng.uniform(-20, 20, 3)
    canvas = _canvas(shape, spacing, rng)
    labels = _draw_chest(canvas, rng)
    hu = canvas.hu + _noise(shape, rng)
    image = np.clip(2 * np.round(hu / 2), -1024, 3070).astype(np.int16)
    metadata = Metadata(source=f"phantom {seed}", modality="CT")
    volume = Volume(image, affine, metadata=metadata)
    return volume, volume.with_array(labels)


def _canvas(shape: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator) -> _Canvas:
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    # Patients lie slightly rotated and off-centre, and differ in size.
    turn, size = np.deg2rad(rng.uniform(-5, 5)), rng.uniform(0.93, 1.06)
    x, y = (np.cos(turn) * x - np.sin(turn) * y) / size, (np.sin(turn) * x + np.cos(turn) * y) / size
    # Smooth bumps of a few millimetres, so that no organ is an exact ellipsoid.
    bumps = [smooth_noise(shape, 4.0, rng) * 2.5 for _ in range(3)]
    x, y, z = (c + b for c, b in zip((x + rng.uniform(-6, 6), y + rng.uniform(-6, 6), z), bumps, strict=True))
    air = np.full(shape, -1000, dtype=np.float32)
    return _Canvas(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32), air, blur_mm=1.2 * spacing[0])


def smooth_noise(shape: tuple[int, ...], sigma: float | tuple[float, ...], rng: np.random.Generator) -> Field:
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return np.asarray(field / field.std(), dtype=np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    """CT noise: correlated over about a voxel within the slice, a little streaky from left to right."""
    grain = smooth_noise(shape, (0.6, 0.6, 0.3), rng) + 0.35 * smooth_noise(shape, (6.0, 0.7, 0.0), rng)
    return grain * float(rng.uniform(20, 28))


def _draw_chest(canvas: _Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint everything in from the outside; returns the label map."""
    soft = float(rng.uniform(32, 48))
    wide, deep = rng.uniform(132, 142), rng.uniform(92, 100)
    lift = float(rng.uniform(-10, 10))
    _draw_table(canvas, deep)

    skin = canvas.distance((0, 0, 0), (wide, deep, 420))
    fat_mm = float(rng.uniform(8, 15))
    canvas.paint(canvas.cover(skin), -100)
    canvas.paint(canvas.cover(skin + fat_mm), soft + 10)

    right = canvas.distance((-56, 2, lift - 10), (48, 69, 108))
    left = canvas.distance((57, 2, lift - 10), (45, 67, 104))
    heart = canvas.distance((22, -24, lift - 38), (44 * rng.uniform(0.9, 1.1), 38, 48))
    middle = canvas.distance((0, 5, 0), (19, 90, 900))
    dome = canvas.z - (lift - 78) + 0.004 * ((np.abs(canvas.x) - 55) ** 2 + canvas.y**2)
    lungs = np.minimum(right, left)
    # A thin layer of pleura and wall separates the lung from every structure that pushes into it.
    lungs = np.maximum.reduce([lungs, 3 - heart, 3 - middle, 3 - dome])

    _draw_bones(canvas, np.minimum(right, left), skin, rng)
    canvas.paint(canvas.cover(heart), soft)
    canvas.paint(canvas.cover(np.maximum(dome, skin + fat_mm + 12)), soft + 18)
    bubble = canvas.distance((48, -30, lift - 110), (26, 20, 14))
    canvas.paint(canvas.cover(bubble), -950)

    # Lungs are denser where they lie: a slope from front to back.
    tissue = -862 + 0.45 * canvas.y + 14 * smooth_noise(canvas.hu.shape, 3.0, rng)
    share = canvas.cover(lungs)
    canvas.paint(share, tissue)
    for start, stop, radius in _vessels(lift, rng):
        # Tubes thinner than a voxel fill only part of it.
        filled = canvas.cover(canvas.to_segment(start, stop) - radius) * min(1.0, 2.2 * radius / canvas.blur_mm)
        canvas.paint(filled * share, soft)
    windpipe = canvas.to_segment((0, 12, lift + 20), (0, 8, 400)) - 9
    canvas.paint(canvas.cover(windpipe), -985)
    for side in (-1.0, 1.0):
        bronchus = canvas.to_segment((0, 12, lift + 20), (side * 26, 14, lift + 2)) - 6
        canvas.paint(canvas.cover(bronchus), -985)

    tumour = _tumour(canvas, lungs, heart, lift, rng)
    canvas.paint(canvas.cover(tumour), soft + float(rng.uniform(-12, 12)))

    labels = np.zeros(canvas.hu.shape, dtype=np.uint8)
    labels[lungs < 0] = LUNG
    labels[tumour < 0] = TUMOUR
    return labels


def _draw_table(canvas: _Canvas, deep: float) -> None:
    below = canvas.y - (deep + 9) + 0.0009 * canvas.x**2
    inside = np.abs(canvas.x) - 150
    # The mattress has the Hounsfield units of lung.
    canvas.paint(canvas.cover(np.maximum(np.abs(below) - 7, inside)), -860)
    canvas.paint(canvas.cover(np.maximum(np.abs(below - 11) - 3, inside)), 60)


def _draw_bones(canvas: _Canvas, lungs: Field, skin: Field, rng: np.random.Generator) -> None:
    gap = float(rng.uniform(25, 31))
    phase = float(rng.uniform(0, gap))
    # Ribs run down from the spine to the front.
    level = (canvas.z + 0.45 * canvas.y + phase) % gap - gap / 2
    ribs = np.maximum(np.abs(level) - 5.5, np.abs(lungs - 9) - 4.5)
    canvas.paint(canvas.cover(np.maximum(ribs, skin + 6)), 330)
    spine = canvas.to_segment((0, 62, -400), (0, 62, 400))
    canvas.paint(canvas.cover(spine - 18), 190 + 60 * np.cos(2 * np.pi * canvas.z / 24))
    canvas.paint(canvas.cover(canvas.to_segment((0, 70, -400), (0, 82, 400)) - 7), 260)
    canvas.paint(canvas.cover(canvas.to_segment((0, 76, -400), (0, 76, 400)) - 5), 30)
    breastbone = np.maximum(canvas.distance((0, -80, 0), (16, 6, 900)), skin + 5)
    canvas.paint(canvas.cover(breastbone), 280)


def _vessels(lift: float, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """Start, end and radius (mm) of every piece of the two vessel trees, thick ones first."""
    pieces = []
    for side in (-1.0, 1.0):
        root = np.array([side * 18.0, 10.0, lift])
        for tilt in (-1.0, 0.0, 1.0):
            heading = np.array([side, rng.uniform(-0.5, 0.5), 1.1 * tilt])
            pieces.append((root, heading / np.linalg.norm(heading), 34.0, float(rng.uniform(4.5, 5.5)), 0))
    while pieces:
        start, heading, length, radius, depth = pieces.pop(0)
        stop = start + heading * length
        yield start, stop, radius
        if depth < 3:
            for _ in range(2):
                turned = heading + rng.normal(0, 0.5, 3)
                turned /= np.linalg.norm(turned)
                pieces.append((stop, turned, length * 0.8, radius * 0.72, depth + 1))


def _tumour(canvas: _Canvas, lungs: Field, heart: Field, lift: float, rng: np.random.Generator) -> Field:
    """Signed distance to a lumpy ball inside one lung, free or grown against the wall."""
    radius = float(rng.uniform(19, 25))
    side = float(rng.choice([-1.0, 1.0]))
    attached = rng.random() < 0.5
    reach = (-radius * 0.9, -radius * 0.3) if attached else (-radius * 1.6, -radius * 1.05)
    fits = (lungs > reach[0]) & (lungs < reach[1]) & (canvas.x * side > 30) & (np.abs(canvas.z - lift) < 62)
    # Pressed against the heart it would be invisible, as both have the same Hounsfield units.
    fits &= heart > 1.2 * radius
    places = np.argwhere(fits)
    where = tuple(places[rng.integers(len(places))])
    center = np.array([float(c[where]) for c in (canvas.x, canvas.y, canvas.z)])
    offset = [c - m for c, m in zip((canvas.x, canvas.y, canvas.z), center, strict=True)]
    away = np.sqrt(sum(o**2 for o in offset)) + 1e-3
    lumps = np.zeros_like(away)
    for _ in range(6):
        heading = rng.standard_normal(3)
        heading /= np.linalg.norm(heading)
        lumps += rng.uniform(-1, 1) * np.cos(3 * sum(o * h for o, h in zip(offset, heading, strict=True)) / away)
    ball = np.asarray(away - radius * (1 + 0.07 * lumps), dtype=np.float32)
    # It fills the lung up to the wall, not the wall itself.
    return np.maximum(ball, lungs - 2)
