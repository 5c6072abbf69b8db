"""The processing chain of one case: read -> network -> findings -> mask -> files. The same in every engine.

A `CaseWork` passes through three stages, which the local engine runs concurrently for different cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import atomic_path
from medseg.errors import ConfigError, InternalError, MedsegError, ReadError, WriteError
from medseg.inference.device import require_torch
from medseg.inference.predictor import Model
from medseg.inference.probabilities import disk_array
from medseg.inference.quality import examine_case
from medseg.output_formats import file_names
from medseg.reports.preview import preview_png
from medseg.studies.case_work import CaseWork, asks_for_review
from medseg.studies.channels import read_channels
from medseg.studies.failures import as_medseg, refuse_change, told_without_values
from medseg.studies.ledger import Ledger, LedgerRow, State, hash_file
from medseg.studies.measurements import findings_of_padding, measure
from medseg.studies.memory import refuse_too_large
from medseg.studies.options import DEFAULT_MARK, PredictOptions
from medseg.studies.outputs import (
    PREVIEWS,
    UNCERTAINTY,
    Segmented,
    algorithm_of,
    formats_for,
    refuse_formats,
    save_probabilities,
    write_mask,
    write_voxels,
)
from medseg.studies.private import PrivateCases
from medseg.studies.registration import require_simpleitk
from medseg.studies.selection import channel_names, select_series
from medseg.studies.sources import Source, input_hash
from medseg.version import __version__
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["CaseChain"]


class CaseChain:
    """The stages of a case, and what all cases of a run share.

    Args:
        model: the model.
        folder: the output folder.
        options: see `PredictOptions`.
        deidentifier: removes the patient's identity from outputs and texts; None keeps it.
    """

    def __init__(
        self, model: Model, folder: Path, options: PredictOptions, deidentifier: Deidentifier | None = None
    ) -> None:
        self.model = model
        self.folder = folder
        self.options = options
        self.deidentifier = deidentifier
        self.private = None if deidentifier is None else PrivateCases(deidentifier)
        if options.crf:
            require_torch("--crf")
        if options.register:
            require_simpleitk()
        self.crf = model.crf_options() if options.crf else None
        if options.save_probabilities and not model.gives_probabilities:
            raise ConfigError("a model made of parts has no probabilities; predict without --save-probabilities")
        # Everything that affects a mask besides model and input; JSON types, so that they compare equal when read back.
        self.settings: dict[str, Any] = {
            "overlap": model.info.overlap if options.overlap is None else options.overlap,
            "mirror_axes": list(model.mirror_axes(options.mirror)),
            "save_probabilities": options.save_probabilities,
            "format": options.format,
            "anonymize": options.anonymize,
            "crf": None if self.crf is None else asdict(self.crf),
            "register": self.options.register,
            "fast": model.engine.fast,
        }
        if options.irregular != "error":
            self.settings["irregular"] = options.irregular
        if options.mark != DEFAULT_MARK:
            self.settings["mark"] = options.mark
        if model.compatible:
            self.settings["compatible"] = True
        if model.folds is not None:
            self.settings["folds"] = list(model.folds)
        if options.estimate_quality:
            require_torch("--estimate-quality")
            from medseg.inference.quality.estimate import check_calibrated

            check_calibrated(model.info)
            self.settings["estimate_quality"] = True
        self.versions = {"medseg": __version__, **model.engine_versions, "device": str(model.device)}

    @property
    def whole_logits(self) -> int:
        """Number of arrays of the size of an image's logits that a case keeps at once."""
        # Those of the mean, of an ensemble member, and of its logits.
        return 3 if self.options.estimate_quality else int(self.crf is not None or self.model.compatible)

    def outputs_of(self, source: Source) -> dict[str, Path]:
        """Format -> the path of a case's file."""
        names = file_names(source.case, formats_for(source, self.options.format))
        return {kind: self.folder / name for kind, name in names.items()}

    def probabilities_of(self, source: Source) -> Path:
        """The path of a case's probabilities."""
        return self.folder / f"{source.case}.npz"

    def uncertainty_of(self, source: Source) -> Path:
        """The path of a case's uncertainty map."""
        return self.folder / UNCERTAINTY / f"{source.case}.nii.gz"

    def keep_engine(self, ledger: Ledger) -> None:
        """Run the network with the engine that made the existing masks, unless one is chosen already."""
        self.model.engine.keep(ledger.engine_of(self.model.model_hash, self.model.engine.fast))

    def hash(self, work: CaseWork) -> None:
        """Hash the files that will be read, if any; an error is stored in the work."""
        if work.source.error:
            return

        def take() -> None:
            refuse_too_large(work.source)
            work.input_hash = work.input_hash or input_hash(work.source)

        self._try(work, take)

    def finished(self, work: CaseWork, latest: LedgerRow | None) -> bool:
        """Whether the case's last row in the ledger was made with the same settings, and its files exist."""
        if self.options.overwrite or latest is None or work.error is not None or work.source.error:
            return False
        # If no engine is chosen yet, the row's engine will be: see `keep_engine`. A row without one was made by the
        # network as it is, while no image had shown labels to choose by.
        if latest.network_engine and self.model.engine_name not in ("", latest.network_engine):
            return False
        if self.options.save_probabilities and not self.probabilities_of(work.source).is_file():
            return False
        if self.options.estimate_quality and not self.uncertainty_of(work.source).is_file():
            return False
        outputs = self.outputs_of(work.source)
        return latest.finishes(work.input_hash, self.model.model_hash, self.settings, outputs)

    def read(self, work: CaseWork) -> None:
        """First stage: read the image."""

        def take() -> None:
            if work.source.error:
                raise ReadError(work.source.error)
            refuse_formats(work.source, tuple(self.outputs_of(work.source)))
            self._refuse_fewer_images(work)
            plan = self.model.info.plan
            work.volume = read_channels(
                work.source, channel_names(plan), plan.reference_channel, self.options.register, plan.image
            )
            refuse_change(work.source, work.snapshot)
            work.findings += work.volume.findings
            work.findings += self.model.supposed_of(work.volume)

        self._try(work, take)

    def compute(self, work: CaseWork, progress: Callable[[int, int], None] | None = None) -> None:
        """Second stage: run the network. `progress` is called with (windows done, number of windows)."""
        volume = work.volume
        if volume is None:
            return
        started = time.monotonic() - work.seconds

        def between_windows(done: int, total: int) -> None:
            self._check_time(work, time.monotonic() - started)
            if progress is not None:
                progress(done, total)

        def on_disk(shape: tuple[int, ...]) -> NDArray[np.float16]:
            work.probabilities = disk_array(self.folder, shape)
            return work.probabilities

        more = 0
        if self.options.estimate_quality:
            from medseg.inference.quality.disagreement import passes_of
            from medseg.inference.quality.estimate import estimate_quality

            more = passes_of(self.model)

        def take() -> None:
            work.mask = self.model.predict(
                volume,
                mirror=self.options.mirror,
                overlap=self.options.overlap,
                crf=self.crf,
                progress=lambda done, total: between_windows(done, total * (1 + more)),
                probabilities=on_disk if self.options.save_probabilities else None,
            )
            # The next case may choose one before this case is finished.
            work.network_engine = self.model.engine_name
            if more:
                work.quality = estimate_quality(
                    self.model,
                    volume,
                    work.mask,
                    self.options.overlap,
                    lambda done, total: between_windows(total // more + done, total // more + total),
                )

        self._try(work, take)

    def finish(self, work: CaseWork) -> None:
        """Third stage: write mask and files; stores the ledger's row in the work.

        Raises:
            WriteError: if the disk is full or permission is missing, which would affect every case.
        """
        row = LedgerRow(
            case=work.source.case,
            state="failed",
            input_hash=work.input_hash,
            study_hash=work.source.study_hash,
            images=max(work.most_images, work.images),
            series_uid=self._shown_uid(work.source),
            series_reason=work.source.reason,
            model_hash=self.model.model_hash,
            options=self.settings,
            network_engine=work.network_engine,
            versions=self.versions,
        )

        def take() -> None:
            nonlocal row
            if work.volume is not None and work.mask is not None:
                state, outputs = self._write(work, work.volume, work.mask)
                first = next(iter(outputs.values()))
                row = replace(row, state=state, output_hash=first, outputs=outputs if len(outputs) > 1 else {})

        self._try(work, take)
        work.volume = work.mask = work.probabilities = work.quality = None
        work.row = replace(
            row,
            seconds=round(work.seconds, 3),
            error=" ".join(str(work.error or "").split()),
            findings=[finding.message for finding in work.findings],
            measurements=[asdict(each) for each in work.measurements],
            figures=work.figures,
        )
        if self.private is not None:
            work.row = self.private.row(work.row, work.source)

    def fail(self, work: CaseWork, error: MedsegError) -> None:
        """Store an error in the work."""
        work.error = error if self.private is None else self.private.error(error, work.source)
        # The traceback would keep the reader's local variables, and thus the images, in memory.
        work.error.__traceback__ = work.error.__context__ = work.error.__cause__ = None
        work.volume = work.mask = work.probabilities = None
        work.measurements, work.figures = (), {}

    def _refuse_fewer_images(self, work: CaseWork) -> None:
        """Refuse a study that had more images before, because it is probably incomplete now."""
        images = work.images
        if images < work.most_images and not self.options.overwrite:
            raise ReadError(
                f"{work.source.paths[0].parent} contains {images} images of the series, an earlier run found "
                f"{work.most_images}; restore the missing ones, or give --overwrite if the series is complete"
            )

    def _write(self, work: CaseWork, volume: Volume, mask: Volume) -> tuple[State, dict[str, str]]:
        """Write the files of a case; its state, and the hash of the file of each format."""
        source, outputs = work.source, self.outputs_of(work.source)
        check = examine_case(volume, mask, self.model.info)
        work.findings += check.findings
        work.figures = dict(check.figures)
        work.measurements = measure(mask, self.model.scheme, volume)
        work.findings += findings_of_padding(work.measurements)
        if work.quality is not None:
            work.findings += work.quality.findings
            graded = zip(work.measurements, work.quality.dice, strict=True)
            work.measurements = tuple(replace(each, predicted_dice=dice) for each, dice in graded)
        preview = preview_png(volume, mask, self.model.scheme) if self.options.preview else None
        # The last step that can be refused; after it files are written, the mask first.
        refuse_change(work.source, work.snapshot)
        case = Segmented(mask, volume, self.model.scheme, source, work.measurements)
        made_by = algorithm_of(self.model.scheme, __version__, self.model.model_hash, self.settings)
        made = datetime.now() if self.options.timestamps else None
        algorithm = replace(made_by, review=asks_for_review(work.findings), made=made, mark=self.options.mark)
        work.findings += write_mask(case, outputs, algorithm, self.deidentifier)
        if work.probabilities is not None:
            save_probabilities(work.probabilities, self.model.scheme, self.probabilities_of(source))
        if work.quality is not None:
            write_voxels(work.quality.uncertainty, self.uncertainty_of(source))
        if preview is not None:
            with atomic_path(self.folder / PREVIEWS / f"{source.case}.png") as temporary:
                temporary.write_bytes(preview)
        hashes = {kind: hash_file(output) for kind, output in outputs.items()}
        if asks_for_review(work.findings):
            return "needs_review", hashes
        return ("done" if mask.array.any() else "done_empty"), hashes

    def _shown_uid(self, source: Source) -> str:
        uid, mark, number = source.series_uid.partition("#")
        return source.series_uid if self.deidentifier is None else self.deidentifier.uid(uid) + mark + number

    def choose(self, source: Source) -> Source:
        """The source with the series that the model needs, or with the reason why none can be chosen."""
        source = source if self.private is None else self.private.named(source)
        chosen = select_series(source, self.model.info.plan, asked=self.options.series is not None)
        irregular = self.options.irregular
        parts = tuple(replace(part, irregular=irregular) for part in chosen.channels)
        return replace(chosen, irregular=irregular, channels=parts)

    def told(self, source: Source) -> str:
        """Which series or files of a source would be used and why, or why it would be refused."""
        text = f"would be refused: {source.error}" if source.error else source.reason
        return text if self.private is None else self.private.reason(text, source)

    def _try(self, work: CaseWork, stage: Callable[[], None]) -> None:
        """Run a stage unless an earlier one has failed; a full disk ends the run, any other failure only this case."""
        if work.error is not None:
            return
        started = time.monotonic()
        try:
            stage()
        except Exception as raised:  # whatever it is, the other cases continue
            # A full disk affects every case; a mask that its format cannot store affects only this one.
            if isinstance(raised, WriteError) and isinstance(raised.__cause__, OSError):
                raise
            error = as_medseg(raised, work.source, work.snapshot)
            if isinstance(error, InternalError):
                error, work.traceback = told_without_values(error, raised, work.source)
            self.fail(work, error)
        finally:
            work.seconds += time.monotonic() - started

    def _check_time(self, work: CaseWork, seconds: float) -> None:
        limit = self.options.time_limit
        if limit is not None and seconds > 60 * limit:
            raise MedsegError(
                f"{work.source.paths[0]} was stopped after {seconds / 60:.1f} minutes, --time-limit is {limit:g}; "
                "allow more, or use a faster machine",
                kind="time_limit",
            )
