"""Reading a case whose channels are separate files or series: all on one grid, of one patient, none used twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from medseg.errors import GeometryError, ReadError
from medseg.geometry import check_same_geometry
from medseg.preparation.interpolate import averaged_for
from medseg.preparation.plan_fields import ImagePlan
from medseg.resampling import resample_like
from medseg.studies.registration import register_rigid
from medseg.studies.sources import Source, read_source
from medseg.volume import Finding, Volume

__all__ = ["CHANNEL_KINDS", "read_channels"]

CHANNEL_KINDS = frozenset({"channel_registered", "channel_partly_missing", "channel_dates_differ"})

# A study may run past midnight; after more than a day the patient has been repositioned, and lesions may have grown.
LARGEST_DAYS = 1
# Fractions of the bright half of the reference that a channel may miss without a finding, and before it is refused.
NOTABLE_PART, LARGEST_PART = 0.05, 0.5
_INTERPOLATED = ImagePlan()


@dataclass(frozen=True, slots=True)
class _Channel:
    volume: Volume
    name: str
    date: str


def read_channels(
    source: Source,
    names: Sequence[str] = (),
    reference: int = 0,
    register: bool = False,
    image: ImagePlan = _INTERPOLATED,
) -> Volume:
    """The image of a case, channels first, (C, I, J, K) or (C, I, J), on the grid of the reference channel.

    Channels of one frame of reference are resampled to that grid, linearly, and averaged before as `image` says where
    the grid is coarser than 1.5 times. Outside a channel's field of view its minimum is used.

    Args:
        source: from `find_studies`, with its series chosen.
        names: of the channels, for messages.
        reference: number of the channel whose grid and metadata the image gets.
        register: align every other channel to the reference by a rigid registration first.
        image: of a plan, how images are interpolated; of its parts, `prefilter`.

    Returns:
        The image. Its findings need review: 'channel_registered', 'channel_partly_missing', 'channel_dates_differ'.

    Raises:
        ReadError: if a file is unreadable, a channel is used twice, or channels differ in patient, study or day.
        GeometryError: if frames of reference differ, fields of view do not overlap, or the registration failed.
    """
    parts = source.channels or (tuple(Source(source.case, (p,)) for p in source.paths) if source.series is None else ())
    if source.error or len(parts) < 2:
        return read_source(source)
    channels = []
    for number, part in enumerate(parts):
        volume = read_source(part)
        if volume.channels != 1:
            raise GeometryError(f"{part.paths[0]} has {volume.channels} channels; expected one, as others have files")
        name = names[number] if number < len(names) and names[number] else f"channel {number}"
        channels.append(_Channel(volume, name, part.series.slices[0].date if part.series else ""))
    findings = _check_belonging(channels, reference)
    return _stacked(channels, reference, register, image, findings)


def _check_belonging(channels: Sequence[_Channel], reference: int) -> list[Finding]:
    findings = []
    first = channels[reference]
    for number, other in enumerate(channels):
        for twin in channels[:number]:
            if twin.volume.shape == other.volume.shape and np.array_equal(twin.volume.array, other.volume.array):
                raise ReadError(f"{twin.name} and {other.name} have the same voxels; one of them is the wrong file")
        if number == reference:
            continue
        for what, said in (("patient_id", "patients"), ("study_instance_uid", "studies")):
            a, b = getattr(first.volume.metadata, what), getattr(other.volume.metadata, what)
            if a and b and a != b:
                raise ReadError(f"{first.name} and {other.name} are of different {said}; channels must belong together")
        days = _days_apart(first.date, other.date)
        if days > LARGEST_DAYS:
            raise ReadError(f"{first.name} and {other.name} were taken {days} days apart; expected one examination")
        if days:
            text = f"{first.name} and {other.name} were taken on different days ({days} day apart)"
            findings.append(Finding("channel_dates_differ", text))
    return findings


def _days_apart(one: str, other: str) -> int:
    """Whole days between two DICOM dates, 0 if either is missing or damaged."""
    try:
        a, b = (date(int(d[:4]), int(d[4:6]), int(d[6:8])) for d in (one, other))
    except ValueError:
        return 0
    return abs((a - b).days)


def _stacked(
    channels: Sequence[_Channel], reference: int, register: bool, image: ImagePlan, findings: list[Finding]
) -> Volume:
    first = channels[reference]
    arrays = []
    for number, channel in enumerate(channels):
        if number == reference:
            arrays.append(first.volume.array)
            continue
        placed, found = _placed(first, channel, register, image)
        arrays.append(placed.array)
        findings += found
    # Findings of the readers come first, in the order of the channels.
    read = [finding for channel in channels for finding in channel.volume.findings]
    array = np.concatenate(arrays)
    return replace(first.volume, array=array, channels=len(array), findings=(*read, *findings))


def _placed(first: _Channel, other: _Channel, register: bool, image: ImagePlan) -> tuple[Volume, list[Finding]]:
    """A channel on the reference's grid, and the findings about it."""
    fixed, moving = first.volume, other.volume
    findings = []
    if register:
        try:
            done = register_rigid(fixed, moving)
        except GeometryError as error:
            raise GeometryError(f"{other.name} cannot be registered to {first.name}: {error}") from None
        moving = done.volume
        text = f"{other.name} was registered to {first.name}: {done.shift_mm:.1f} mm, {done.turn_degrees:.1f} degrees"
        findings.append(Finding("channel_registered", text))
    else:
        frames = {v.metadata.frame_of_reference_uid for v in (fixed, moving)} - {""}
        if len(frames) > 1:
            raise GeometryError(
                f"{first.name} and {other.name} are in different frames of reference, so their positions cannot be "
                "compared; use --register to align them"
            )
        if fixed.dims == 2 or not (fixed.spacing_known and moving.spacing_known):
            check_same_geometry(fixed, moving, first.name, other.name)
        if fixed.same_geometry(moving, tolerance_mm=1e-2):
            return moving, findings
    missing = _missing_part(fixed, moving)
    if missing > LARGEST_PART:
        raise GeometryError(
            f"{other.name} covers only {1 - missing:.0%} of what {first.name} shows; expected images of one region"
            + ("" if register else ", or --register where the patient moved")
        )
    if missing > NOTABLE_PART:
        text = f"{other.name} does not cover {missing:.0%} of what {first.name} shows; its minimum is used there"
        findings.append(Finding("channel_partly_missing", text))
    lowest = float(moving.array.min())
    return resample_like(averaged_for(moving, fixed, image), fixed, order=1, outside=lowest), findings


def _missing_part(fixed: Volume, moving: Volume) -> float:
    """Fraction of the reference's voxels above its mean outside the other image; air around a head does not count."""
    covered = resample_like(moving.with_array(np.ones(moving.shape, np.uint8)), fixed, order=0).array > 0
    bright = fixed.array[0] > fixed.array.mean()
    return float(1 - covered[bright].mean()) if bright.any() else float(1 - covered.mean())
