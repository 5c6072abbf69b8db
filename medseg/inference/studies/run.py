"""A folder of cases or DICOM studies in one go: model loaded once, every mask in place or a named reason.

Reading and decoding the next case runs beside the network. Masks appear by atomic rename, the ledger gets a line per
case as soon as its mask is there, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import medseg
from medseg.errors import DatasetError, MedsegError, ReadError, WriteError
from medseg.inference.predictor import Model, load_model
from medseg.inference.studies.ledger import Ledger, LedgerRow, hash_file
from medseg.inference.studies.options import PredictOptions
from medseg.inference.studies.outputs import FORMATS, algorithm_of, format_for, write_mask
from medseg.inference.studies.results import StudiesResult
from medseg.io.atomic import atomic_path, write_text_atomic
from medseg.io.formats import stem_of
from medseg.io.sources import Source, find_studies, input_hash, read_source
from medseg.labels import LabelScheme
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.io.dicom.deidentify import Deidentifier

__all__ = ["predict_studies"]

log = logging.getLogger(__name__)

# What a damaged study or one that does not fit into memory can raise somewhere in a decoder or in the network.
CASE_ERRORS = (
    MedsegError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
)


def predict_studies(
    model: Model | str | Path,
    sources: Sequence[str | Path],
    out: str | Path,
    options: PredictOptions | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> StudiesResult:
    """Predict every case among `sources`; a failing case is recorded and the rest goes on.

    Args:
        model: a bundle's path, or a loaded model (`options.device` is then not looked at).
        sources: files, DICOM folders, folders of studies, zips.
        out: folder for `<case>.nii.gz` (or .png), `ledger.jsonl` and `labels.json`.
        options: see `PredictOptions`.
        progress: called with (cases done, cases, name of the case); fractions of cases as windows are done.

    Returns:
        What became of each case. Failures are in it; `raise_for_failures` turns them into an error.

    Raises:
        CheckpointError: the model cannot be used.
        ReadError: no case found among the sources.
        WriteError: disk full or no permission; what is done so far stays done.
        ConfigError: impossible options.

    Example:
        >>> predict_studies("runs/lung/model", ["studies/"], "masks/").raise_for_failures()
    """
    options = options or PredictOptions()
    folder = Path(out)
    found = _find([Path(s) for s in sources], options.series)
    loaded = model if isinstance(model, Model) else load_model(model, options.device)
    run = _Run(loaded, folder, options)
    run.check_names(found)
    if options.dry_run:
        planned = [source.case for source in found if not run.skips(source)]
        return StudiesResult(folder, (), tuple(s.case for s in found if s.case not in planned), tuple(planned))
    write_text_atomic(folder / "labels.json", _labels_json(loaded.scheme))
    rows: list[LedgerRow] = []
    skipped: list[str] = []
    errors: list[MedsegError] = []
    for number, (source, read) in enumerate(run.read_ahead(found)):
        if read is None:
            skipped.append(source.case)
        else:
            row, error = run.predict(source, read, _within(progress, number, len(found), source.case))
            run.ledger.append(row)
            rows.append(row)
            if error is not None:
                errors.append(error)
                log.warning("%s failed: %s", source.case, error)
        if progress is not None:
            progress(number + 1, len(found), source.case)
    return StudiesResult(folder, tuple(rows), tuple(skipped), errors=tuple(errors))


@dataclass(frozen=True, slots=True)
class _Read:
    """What the reading thread hands over: a volume or an error."""

    input_hash: str
    volume: Volume | None
    error: MedsegError | None
    seconds: float


class _Run:
    """One call of `predict_studies`: what all its cases share."""

    def __init__(self, model: Model, folder: Path, options: PredictOptions) -> None:
        self.model = model
        self.folder = folder
        self.options = options
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.crf = model.crf_options() if options.crf else None
        # All that changes a mask besides model and input; JSON types, so that they compare equal when read back.
        self.settings: dict[str, Any] = {
            "overlap": model.info.prediction.overlap if options.overlap is None else options.overlap,
            "mirror_axes": list(model.mirror_axes(options.mirror)),
            "save_probabilities": options.save_probabilities,
            "format": options.format,
            "anonymize": options.anonymize,
            "crf": None if self.crf is None else asdict(self.crf),
        }
        self.deidentifier = _deidentifier(model.scheme) if options.anonymize else None
        self.versions = {"medseg": medseg.__version__, "torch": torch.__version__, "device": str(model.device)}

    def output_of(self, source: Source) -> Path:
        """Where the mask of a case goes."""
        return self.folder / f"{source.case}{FORMATS[format_for(source, self.options.format)]}"

    def probabilities_of(self, source: Source) -> Path:
        """Where the probabilities of a case go."""
        return self.folder / f"{source.case}.npz"

    def check_names(self, sources: Sequence[Source]) -> None:
        """Refuse two cases with one output, and names that lead out of the output folder."""
        seen: dict[str, Source] = {}
        for source in sources:
            if Path(source.case).is_absolute() or ".." in Path(source.case).parts:
                raise ReadError(f"case name {source.case!r} would lead out of {self.folder}; rename the folder or file")
            twin = seen.setdefault(source.case.lower(), source)
            if twin is not source:
                raise DatasetError(
                    f"{twin.paths[0]} and {source.paths[0]} would both become {source.case}; give them one by one"
                )

    def skips(self, source: Source) -> bool:
        """Whether the case is done already."""
        try:
            return source.error == "" and self._finished(source, input_hash(source))
        except ReadError:
            return False

    def _finished(self, source: Source, content_hash: str) -> bool:
        if self.options.overwrite or (self.options.save_probabilities and not self.probabilities_of(source).is_file()):
            return False
        return self.ledger.finished(
            source.case, content_hash, self.model.model_hash, self.settings, self.output_of(source)
        )

    def read_ahead(self, sources: Sequence[Source]) -> Iterator[tuple[Source, _Read | None]]:
        """Each source with what was read of it, None if it is done already; the next is read meanwhile."""
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="medseg-read")
        try:
            following = pool.submit(self._read, sources[0])
            for number, source in enumerate(sources):
                current, following = following, following
                read = current.result()
                if number + 1 < len(sources):
                    following = pool.submit(self._read, sources[number + 1])
                yield source, read
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, source: Source) -> _Read | None:
        started = time.monotonic()
        content_hash, volume, error = "", None, None
        try:
            content_hash = input_hash(source)
            if source.error:
                raise ReadError(source.error)
            if self._finished(source, content_hash):
                return None
            volume = read_source(source)
        except CASE_ERRORS as raised:
            error = _as_medseg(raised, source)
        return _Read(content_hash, volume, error, time.monotonic() - started)

    def predict(
        self, source: Source, read: _Read, progress: Callable[[int, int], None] | None
    ) -> tuple[LedgerRow, MedsegError | None]:
        """Predict and write one case; a full disk ends the run, any other failure is handed back."""
        started = time.monotonic()
        row = LedgerRow(
            case=source.case,
            state="failed",
            input_hash=read.input_hash,
            series_uid=self._shown_uid(source),
            series_reason=_series_reason(source, self.options),
            model_hash=self.model.model_hash,
            options=self.settings,
            versions=self.versions,
        )
        error = read.error
        if read.volume is not None:
            try:
                state, output_hash = self._predict(source, read.volume, progress)
                row = replace(row, state=state, output_hash=output_hash)
            except CASE_ERRORS as raised:
                # A full disk meets every case; a mask that its format cannot hold meets only this one.
                if isinstance(raised, WriteError) and isinstance(raised.__cause__, OSError):
                    raise
                error = _as_medseg(raised, source)
        seconds = round(read.seconds + time.monotonic() - started, 3)
        return replace(row, seconds=seconds, error=" ".join(str(error or "").split())), error

    def _predict(self, source: Source, volume: Volume, progress: Callable[[int, int], None] | None) -> tuple[Any, str]:
        logits, grid = self.model.predict_logits(
            volume, mirror=self.options.mirror, overlap=self.options.overlap, crf=self.crf, progress=progress
        )
        if self.options.save_probabilities:
            self._save_probabilities(source, self.model.to_probabilities(logits, grid, volume))
        mask = self.model.to_labels(logits, grid, volume)
        output = self.output_of(source)
        kind = format_for(source, self.options.format)
        algorithm = algorithm_of(self.model.scheme, medseg.__version__, self.model.model_hash, self.settings)
        for finding in write_mask(mask, output, kind, self.model.scheme, source, algorithm, self.deidentifier):
            log.warning("%s: %s", source.case, finding.message)
        return ("done" if mask.array.any() else "done_empty"), hash_file(output)

    def _shown_uid(self, source: Source) -> str:
        uid, mark, number = source.series_uid.partition("#")
        return source.series_uid if self.deidentifier is None else self.deidentifier.uid(uid) + mark + number

    def _save_probabilities(self, source: Source, probabilities: Volume) -> None:
        names = np.array(self.model.scheme.names)
        with atomic_path(self.probabilities_of(source)) as temporary, temporary.open("wb") as file:
            np.savez(file, probabilities=probabilities.array, labels=names)


def _deidentifier(scheme: LabelScheme) -> Deidentifier:
    from medseg.io.dicom.deidentify import Deidentifier
    from medseg.io.dicom.deidentify_files import site_key
    from medseg.io.dicom.labels import harmless_texts

    return Deidentifier.with_key(site_key(), harmless_texts(scheme))


def _find(places: Sequence[Path], series: str | None) -> list[Source]:
    """All cases; where several places were given, one without a readable image is a failed case, not the end."""
    found: list[Source] = []
    for place in places:
        try:
            found += find_studies(place, series)
        except MedsegError as error:
            if len(places) == 1 or not place.exists():
                raise
            found.append(Source(stem_of(place), (place,), error=str(error)))
    if not found:
        raise ReadError("nothing to predict: give a file, a DICOM folder, a folder of studies or a zip")
    return found


def _labels_json(scheme: LabelScheme) -> str:
    """What the values in the masks mean, for `medseg evaluate`."""
    labels = {n: list(v) if scheme.is_regions else v[0] for n, v in zip(scheme.names, scheme.values, strict=True)}
    return (
        json.dumps({"format_version": 1, "labels": labels, "ignore": scheme.ignore}, indent=2, ensure_ascii=False)
        + "\n"
    )


def _series_reason(source: Source, options: PredictOptions) -> str:
    if not source.series_uid:
        return ""
    return "asked for by its UID" if options.series else "the only image series of the study"


def _as_medseg(error: BaseException, source: Source) -> MedsegError:
    if isinstance(error, MedsegError):
        return error
    reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
    if isinstance(error, MemoryError) or "out of memory" in reason:
        return MedsegError(f"{source.paths[0]}: not enough memory for this case ({reason}); close other programs")
    return ReadError(f"{source.paths[0]}: {type(error).__name__}: {reason}")


def _within(
    progress: Callable[[float, float, str], None] | None, number: int, cases: int, name: str
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(number + done / total * 0.99, cases, name)
