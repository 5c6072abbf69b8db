"""A case in progress: what each stage of the chain leaves for the next, and whether a person must look at the mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medseg.disk.snapshot import CaseSnapshot
from medseg.errors import MedsegError
from medseg.inference.quality import needs_review
from medseg.studies.channels import CHANNEL_KINDS
from medseg.studies.ledger import LedgerRow
from medseg.studies.measurements import Measurement
from medseg.studies.sources import Source
from medseg.volume import Finding, Volume

if TYPE_CHECKING:
    from medseg.inference.quality.estimate import QualityEstimate

__all__ = ["CaseWork", "asks_for_review"]

# Findings of a reader that need review: the mask may be right, but the image is unusual.
REVIEW_KINDS = CHANNEL_KINDS | {
    *("gantry_tilt", "localizer", "few_slices", "no_orientation", "sform_qform_differ"),
    *("missing_slices", "uneven_spacing"),
}


@dataclass(slots=True)
class CaseWork:
    """One case in progress; each stage stores its result here and drops what later stages do not need.

    Args:
        source: the case.
        snapshot: its files before anything was read.
        most_images: the largest number of images of its series that any run on this folder has seen.
        network_engine: what ran the network; '' before, and while none is chosen.
        traceback: of an internal error.
    """

    source: Source
    snapshot: CaseSnapshot = field(default_factory=lambda: CaseSnapshot({}))
    input_hash: str = ""
    most_images: int = 0
    volume: Volume | None = None
    mask: Volume | None = None
    probabilities: NDArray[np.float16] | None = None
    quality: QualityEstimate | None = None
    findings: list[Finding] = field(default_factory=list)
    measurements: tuple[Measurement, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    row: LedgerRow | None = None
    error: MedsegError | None = None
    network_engine: str = ""
    traceback: str = ""
    skipped: bool = False
    locked: bool = False
    seconds: float = 0.0

    @property
    def images(self) -> int:
        """Number of images of the chosen series; 0 for other formats, and while none is chosen."""
        return len(self.source.series.slices) if self.source.series is not None else 0


def asks_for_review(findings: Sequence[Finding]) -> bool:
    """Whether a person should look at a mask because of findings about the image, the mask or both."""
    return needs_review(findings) or any(finding.kind in REVIEW_KINDS for finding in findings)
