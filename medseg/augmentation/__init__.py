"""Random changes of training samples: drawn first, applied then, so that every sample can be replayed."""

from medseg.augmentation.custom import CustomAugment, load_custom
from medseg.augmentation.intensity import IntensityAugment, IntensityParams
from medseg.augmentation.spatial import SpatialAugment, SpatialParams

__all__ = ["CustomAugment", "IntensityAugment", "IntensityParams", "SpatialAugment", "SpatialParams", "load_custom"]
