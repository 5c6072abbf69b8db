"""Random changes of training samples: drawn first, applied then, so that every sample can be replayed.

`SpatialAugment` moves image and labels in one resampling; `IntensityAugment` and the classes of `CHANGES` change grey
levels; `SampleAugment` is all that follows the spatial part, as `augmentation.*` of a configuration describes it.
Randomness comes from a `numpy.random.Generator` that is passed in.
"""

from medseg.augmentation.change import DrawnChange, IntensityChange
from medseg.augmentation.custom import CustomAugment, load_custom
from medseg.augmentation.intensity import IntensityAugment, IntensityParams
from medseg.augmentation.intensity_changes import (
    CHANGES,
    Blur,
    Brightness,
    Contrast,
    Gamma,
    LowResolution,
    Noise,
    build_change,
)
from medseg.augmentation.sequence import SampleAugment
from medseg.augmentation.spatial import SpatialAugment, SpatialParams

__all__ = [
    "CHANGES",
    "Blur",
    "Brightness",
    "Contrast",
    "CustomAugment",
    "DrawnChange",
    "Gamma",
    "IntensityAugment",
    "IntensityChange",
    "IntensityParams",
    "LowResolution",
    "Noise",
    "SampleAugment",
    "SpatialAugment",
    "SpatialParams",
    "build_change",
    "load_custom",
]
