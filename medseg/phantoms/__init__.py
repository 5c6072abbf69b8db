"""Synthetic images: the studies behind `medseg demo`, `data_samples/` and the tests. No patient is in them.

`python -m medseg.phantoms data_samples` writes the samples again, byte for byte.
"""

from __future__ import annotations

from medseg.phantoms.chest import LUNG, TUMOUR, make_phantom
from medseg.phantoms.retina import make_retina
from medseg.phantoms.samples import CASES, STUDY_SEED, sample_study, samples_folder, write_samples

__all__ = [
    "CASES",
    "LUNG",
    "STUDY_SEED",
    "TUMOUR",
    "make_phantom",
    "make_retina",
    "sample_study",
    "samples_folder",
    "write_samples",
]
