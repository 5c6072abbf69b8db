"""Random changes of training samples: drawn first, applied then, so that every sample can be replayed.

`SpatialAugment` moves image and labels in one resampling; `IntensityAugment` and the classes of `CHANGES` change grey
levels; `SampleAugment` is all of a sample beside the spatial part, as `augmentation.*` of a configuration describes it;
`BatchMixing` mixes the samples of a batch.
Randomness comes from a `numpy.random.Generator` that is passed in.
"""

from medseg.augmentation.change import DrawnChange, IntensityChange
from medseg.augmentation.custom import CustomAugment, load_custom
from medseg.augmentation.intensity import IntensityAugment, IntensityParams
from medseg.augmentation.intensity_changes import (
    CHANGES,
    BiasField,
    Blur,
    Brightness,
    Contrast,
    Gamma,
    LowResolution,
    Noise,
    Sharpen,
    build_change,
)
from medseg.augmentation.mixing import BatchMixing, Mixed, MixParams, mixed_loss
from medseg.augmentation.range_changes import Hue, RandomWindow, Saturation
from medseg.augmentation.sequence import SampleAugment
from medseg.augmentation.spatial import SpatialAugment, SpatialParams

__all__ = [
    "CHANGES",
    "BatchMixing",
    "BiasField",
    "Blur",
    "Brightness",
    "Contrast",
    "CustomAugment",
    "DrawnChange",
    "Gamma",
    "Hue",
    "IntensityAugment",
    "IntensityChange",
    "IntensityParams",
    "LowResolution",
    "MixParams",
    "Mixed",
    "Noise",
    "RandomWindow",
    "SampleAugment",
    "Saturation",
    "Sharpen",
    "SpatialAugment",
    "SpatialParams",
    "build_change",
    "load_custom",
    "mixed_loss",
]
