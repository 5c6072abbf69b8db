"""Random structure sets of other programs against a painter that decides every voxel centre by itself.

The painter shares no code with medseg: it asks matplotlib on which side of a contour points lie, for voxel centres and
for points close together along the other contours.
"""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from medseg.io.dicom.rtstruct.read import read_rtstruct
from medseg.volume import Volume

# Oblique, 0.9 x 1.2 x 3 mm.
SHAPE = (30, 26, 4)
_TURN = np.linalg.qr(np.array([[5.0, 1, -2], [-1, 6, 1], [2, 0, 7]]))[0]
LPS = np.eye(4)
LPS[:3, :3] = _TURN * np.sign(np.diag(_TURN)) * (0.9, 1.2, 3.0)
LPS[:3, 3] = (-40.0, 25.0, -110.0)
LIKE = Volume(np.zeros(SHAPE, np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]) @ LPS)
CENTRES = np.argwhere(np.ones(SHAPE[:2]))
NEAR = 0.005 * np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
KINDS = ("plain", "nested", "crossing", "duplicate", "keyhole", "xor", "neighbours", "outside", "sagittal", "beyond")


def blob(rng, centre, radius, points=14):
    """A star-shaped polygon whose radius varies by a quarter."""
    turn = np.sort(rng.uniform(0, 2 * np.pi, points))
    turn = turn if np.diff(turn, append=turn[0] + 2 * np.pi).max() < 2 else np.linspace(0, 6, points)
    return np.asarray(centre) + (radius * rng.uniform(0.8, 1.25, len(turn)) * np.stack([np.cos(turn), np.sin(turn)])).T


def somewhere(rng):
    return rng.uniform((9, 9), (SHAPE[0] - 10, SHAPE[1] - 10))


def contours_of(kind, rng):
    """The contours of one slice in voxel indices, each with its type."""
    centre = somewhere(rng)
    outer = blob(rng, centre, rng.uniform(6, 8))
    rings = [outer, blob(rng, centre, rng.uniform(2.5, 4)), blob(rng, centre, rng.uniform(0.8, 1.5))]
    planar = "CLOSED_PLANAR"
    if kind == "nested":
        return [(planar, rings[n]) for n in rng.permutation(rng.integers(2, 4))]
    if kind == "crossing":
        several = [outer, blob(rng, centre + rng.uniform(-6, 6, 2), rng.uniform(2, 6))]
        several += [blob(rng, centre, 1.0)] * int(rng.integers(2))
        return [(planar, each) for each in several]
    if kind == "duplicate":
        again = np.roll(outer[:: rng.choice([-1, 1])], rng.integers(len(outer)), axis=0)
        again = np.vstack([again, again[:1]]) if rng.integers(2) else again
        return [(planar, each) for each in (outer, *rings[1 : rng.integers(1, 3)], again)]
    if kind == "keyhole":
        hole = rings[1][:: rng.choice([-1, 1])]
        return [(planar, np.vstack([outer, outer[:1], hole, hole[:1]]))]
    if kind == "xor":
        several = [*rings[: rng.integers(1, 4)], blob(rng, somewhere(rng), 4)]
        return [("CLOSEDPLANAR_XOR", each) for each in several]
    if kind == "neighbours":
        # Two halves that share an edge.
        half = len(outer) // 2
        return [(planar, outer[: half + 1]), (planar, np.vstack([outer[half:], outer[:1]]))]
    if kind == "outside":
        return [(planar, outer + np.array([100, 0]))]
    return [(planar, outer)]


def a_structure_set(rng):
    """{name: {slice: contours}} in voxel indices; the slice of a contour beyond the scan is 9."""
    rois = {}
    for n in range(rng.integers(2, 5)):
        kind = KINDS[rng.integers(len(KINDS))]
        slices = rng.choice(SHAPE[2], rng.integers(1, SHAPE[2] + 1), replace=False).tolist()
        rois[f"{kind} {n}"] = {9 if kind == "beyond" else k: contours_of(kind, rng) for k in slices}
    return rois


def in_patient(kind, k, points):
    """LPS mm with the four decimals of a file; a sagittal contour is drawn across the slices."""
    index = np.c_[points, np.full(len(points), k)]
    if kind == "sagittal":
        index = np.c_[np.full(len(points), 9.0), points[:, 0], points[:, 1] / 4]
    return [tuple(p) for p in (index @ LPS[:3, :3].T + LPS[:3, 3]).tolist()]


def walk(points, step=0.05):
    """Points close together along a contour."""
    ends = np.roll(points, -1, axis=0)
    parts = [a + (b - a) * np.arange(0, 1, step)[:, None] for a, b in zip(points, ends, strict=True)]
    return np.concatenate(parts)


def is_same(a, b):
    def corners(points):
        return {tuple(p) for p in np.round(points, 6).tolist()}

    return corners(a) == corners(b)


def is_inside(a, b):
    """Whether contour a lies wholly inside b."""
    return Polygon(b).contains_points(walk(a)).all() and not Polygon(a).contains_points(walk(b)).any()


def do_cross(a, b):
    sides = Polygon(b).contains_points(walk(a))
    return bool(sides.any() and not sides.all())


def painted(contours):
    """By the rules: identical ones once, innermost contours decide by their depth, exclusive ones by parity."""
    holds = [Polygon(points).contains_points(CENTRES) for _, points in contours]
    if contours[0][0] == "CLOSEDPLANAR_XOR":
        return np.sum(holds, axis=0) % 2 == 1
    different = [n for n, (_, p) in enumerate(contours) if not any(is_same(p, q) for _, q in contours[:n])]
    around = {n: [m for m in different if m != n and is_inside(contours[n][1], contours[m][1])] for n in different}

    def depth(n):
        return 1 + max(map(depth, around[n]), default=0)

    mask = np.zeros(len(CENTRES), bool)
    for at in range(len(CENTRES)):
        here = [n for n in different if holds[n][at]]
        innermost = [n for n in here if not any(n in around[m] for m in here)]
        mask[at] = any(depth(n) % 2 == 1 for n in innermost)
    return mask


def is_clear(kind, contours):
    """Whether no contour is so close to another or to a voxel centre that a walk of points could miss it."""
    for n, (_, a) in enumerate(contours):
        if any(
            (Polygon(a + off).contains_points(CENTRES) != Polygon(a).contains_points(CENTRES)).any() for off in NEAR
        ):
            return False
        for _, b in contours[:n]:
            if is_same(a, b) or kind == "neighbours":
                continue
            for one, other in ((a, b), (b, a)):
                sides = Polygon(other).contains_points(walk(one))
                if 0 < sides.sum() < 8 or 0 < (~sides).sum() < 8:
                    return False
    return True


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
def test_structure_sets_are_painted_by_the_rules_or_say_what_is_left_out(drawn, seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        rois = a_structure_set(rng)
        while not all(
            is_clear(name.split()[0], contours) for name, slices in rois.items() for contours in slices.values()
        ):
            rois = a_structure_set(rng)
        bad = {name for name in rois if name.split()[0] in ("outside", "sagittal", "beyond")}
        expected = np.zeros(SHAPE, int)
        for value, (name, slices) in enumerate(rois.items(), start=1):
            for k, contours in slices.items() if name not in bad else ():
                expected[:, :, k][painted(contours).reshape(SHAPE[:2])] = value
        file = drawn(
            {
                name: [
                    (geometric, in_patient(name.split()[0], k, points))
                    for k, contours in slices.items()
                    for geometric, points in contours
                ]
                for name, slices in rois.items()
            }
        )
        if bad == rois.keys():
            continue
        labels, values = read_rtstruct(file, LIKE)
        np.testing.assert_array_equal(labels.array, expected)
        assert values == {name: n for n, name in enumerate(rois, start=1) if name not in bad}
        told = {(f.kind, f.message.split("'")[1]) for f in labels.findings if f.kind != "overlap"}
        assert {name for kind, name in told if kind == "roi_left_out"} == bad
        assert {name for kind, name in told if kind == "contours_repeated"} == {
            name for name in rois if name.startswith("duplicate")
        }
        crossing = {
            name
            for name, slices in rois.items()
            if not name.startswith("xor")
            and any(do_cross(a, b) for each in slices.values() for _, a in each for _, b in each if not is_same(a, b))
        }
        # Contours that cross without a common voxel change nothing, and need no finding.
        assert {name for kind, name in told if kind == "contours_cross"} <= crossing - bad
