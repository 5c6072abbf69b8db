"""`medseg suggest`: ranks unlabelled studies by expected gain and writes the best with the model's masks."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.commands.suggestion.export import Exporter, check_format
from medseg.commands.suggestion.gain import Picked, StudyGain, gain_of, picked
from medseg.datasets.pair_finding import folder_pairs
from medseg.disk.atomic import atomic_folder, write_text_atomic
from medseg.disk.directory_walk import files_below
from medseg.errors import ConfigError, MedsegError, PartialFailure, ReadError, WriteError
from medseg.inference.load import load_model
from medseg.inference.predictor import Model
from medseg.io.formats import stem_of
from medseg.io.naming import composed
from medseg.preparation.plan import Plan
from medseg.studies.channels import read_channels
from medseg.studies.find import find_sources
from medseg.studies.label_table import write_label_table
from medseg.studies.selection import channel_names, select_series
from medseg.studies.sources import Source
from medseg.volume import Volume

__all__ = ["SuggestOptions", "suggest"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class SuggestOptions:
    """What is suggested, and in which form.

    Args:
        count: how many studies, at least 1.
        format: one of `medseg.commands.suggestion.export.FORMATS`.
        device: 'auto', 'cpu', 'cuda', 'cuda:N'.
        allow_code: see `load_model`.

    Raises:
        ConfigError: an unknown format, or no study asked for.
    """

    count: int = 10
    format: str = "nifti"
    device: str = "auto"
    allow_code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_format(self.format)
        if self.count < 1:
            raise ConfigError(f"-n is {self.count}; expected a number of studies from 1")


def suggest(path: Path, place: Path, out: Path, options: SuggestOptions, progress: Progress) -> str:
    """Rank the unlabelled studies of a folder, and write the first with the model's masks.

    Writes `suggested.csv` (all studies, the suggested ones first), `labels.json` and what `Exporter` describes.

    Args:
        path: a bundle.
        place: studies; of `images/` with `labels/`, or `imagesTr/` with `labelsTr/`, those without a label map.
        out: a folder that is new or empty.
        options: see there.
        progress: called as `progress(done, total, study)`.

    Returns:
        A summary for a console, with the next steps.

    Raises:
        CheckpointError: for what is not a model.
        ReadError: no study, or none that can be read.
        PartialFailure: some studies could not be read; the others are ranked and written.
        WriteError: a folder that holds something, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WriteError(f"{out} exists and is not an empty folder; give another one with -o")
    model = load_model(path, options.device, allow_code=options.allow_code)
    plan = model.info.plan
    sources = [select_series(source, plan) for source in _unlabelled(place, out, plan)]
    gains: list[StudyGain] = []
    ranked: list[Source] = []
    failed: list[tuple[Source, MedsegError]] = []
    for number, source in enumerate(sources):
        progress(number, len(sources), source.case)
        try:
            gains.append(gain_of(model, _image(source, plan)))
            ranked.append(source)
        except MedsegError as error:
            failed.append((source, error))
    if not ranked:
        raise failed[0][1]
    order = picked(gains, len(gains))
    chosen = order[: options.count]
    with atomic_folder(out, overwrite=True) as folder:
        _write(folder, model, [ranked[each.index] for each in chosen], options)
        write_text_atomic(folder / "suggested.csv", _table(order, ranked, len(chosen)))
    progress(len(sources), len(sources), "")
    text = _summary(chosen, ranked, out, options, path, place)
    if failed:
        names = "; ".join(f"{source.case}: {' '.join(str(error).split())}" for source, error in failed)
        raise PartialFailure(f"{len(failed)} of {len(sources)} studies could not be read: {names}\n{text}")
    return text


def _unlabelled(place: Path, out: Path, plan: Plan) -> list[Source]:
    pairs = [(place / "imagesTr", place / "labelsTr")] if (place / "imagesTr").is_dir() else []
    if not pairs and place.is_dir():
        pairs = [(pair.images, pair.labels) for pair in folder_pairs(place)]
    if not pairs:
        return find_sources([place], None, out, channel_names(plan))
    done = {composed(stem_of(file)) for _, labels in pairs for file in files_below(labels)[0] if labels.is_dir()}
    found = find_sources([images for images, _ in pairs], None, out, channel_names(plan))
    left = [source for source in found if composed(source.case) not in done]
    if not left:
        raise ReadError(f"every image of {place} has a label map already; give a folder of unlabelled studies")
    return left


def _image(source: Source, plan: Plan) -> Volume:
    if source.error:
        raise ReadError(source.error)
    return read_channels(source, channel_names(plan), plan.reference_channel, False, plan.image)


def _write(folder: Path, model: Model, sources: Sequence[Source], options: SuggestOptions) -> None:
    exporter = Exporter(folder, options.format, model)
    for source in sources:
        image = _image(source, model.info.plan)
        exporter.add(source, image, model.predict(image))
    exporter.finish()
    write_label_table(folder, model.scheme)


def _table(order: Sequence[Picked], sources: Sequence[Source], chosen: int) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rank", "study", "suggested", "gain", "disagreement", "distance"])
    for rank, each in enumerate(order, start=1):
        numbers = (f"{value:.6g}" for value in (each.gain, each.disagreement, each.distance))
        writer.writerow([rank, sources[each.index].case, "yes" if rank <= chosen else "no", *numbers])
    return buffer.getvalue()


def _summary(
    chosen: Sequence[Picked], sources: Sequence[Source], out: Path, options: SuggestOptions, model: Path, place: Path
) -> str:
    lines = [f"{len(chosen)} of {len(sources)} unlabelled studies are suggested:"]
    lines += [
        f"{rank:4d}  {sources[each.index].case}: expected gain {each.gain:.3f} (disagreement "
        f"{each.disagreement:.3f}, distance {each.distance:.3f})"
        for rank, each in enumerate(chosen, start=1)
    ]
    masks = out / ("labels" if options.format in ("nifti", "dicom-seg") else "annotations")
    run = model.parent if model.name == "model" else model
    command = ["medseg", "correct", str(run), str(masks), "-o", f"{run}2", "--images", str(place)]
    lines.append(f"the model's masks to correct: {masks}")
    lines.append(f"then: {shlex.join(command)}")
    return "\n".join(lines)
