"""Random changes of training samples: drawn first, applied then, so that every sample can be replayed."""

from medseg.augmentation.spatial import SpatialAugment, SpatialParams

__all__ = ["SpatialAugment", "SpatialParams"]
