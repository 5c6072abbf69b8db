"""The configuration of a run: its parts as models, read from YAML and overrides."""

from __future__ import annotations

from medseg.config.augmentation import AugmentationConfig
from medseg.config.data import DataConfig, Labels, SplitConfig, WindowConfig
from medseg.config.distill import DistillConfig
from medseg.config.intensity import (
    BiasFieldConfig,
    BlurConfig,
    BrightnessConfig,
    ContrastConfig,
    GammaConfig,
    HueConfig,
    IntensityConfig,
    LowResolutionConfig,
    NoiseConfig,
    PluginConfig,
    RandomWindowConfig,
    SaturationConfig,
    SharpenConfig,
)
from medseg.config.keys import Key, all_keys, entry_keys, is_known, keys_meant, nearest_keys
from medseg.config.loading import config_from_values, load_config, parse_overrides
from medseg.config.loss import LossConfig, LossTerm
from medseg.config.net import NetConfig, NetOptions
from medseg.config.part import Range
from medseg.config.patterns import LONGEST_TEXT
from medseg.config.plan import MOST_VOXELS, RESENC_NET, RESENC_SIZES, PatchSize, PlanConfig, Spacing
from medseg.config.prediction import MOST_OVERLAP, Overlap, PostprocessConfig, PredictionConfig
from medseg.config.presets import packaged, packaged_configs, packaged_presets
from medseg.config.run import RunConfig
from medseg.config.select import SelectRule
from medseg.config.semi import SemiConfig
from medseg.config.training import DEFAULT_MINUTES, TrainingConfig
from medseg.config.validation import validate_model
from medseg.config.weak import WeakConfig
from medseg.config.yaml_text import MOST_LIST_BYTES, parse_yaml, read_text

__all__ = [
    "DEFAULT_MINUTES",
    "LONGEST_TEXT",
    "MOST_LIST_BYTES",
    "MOST_OVERLAP",
    "MOST_VOXELS",
    "RESENC_NET",
    "RESENC_SIZES",
    "AugmentationConfig",
    "BiasFieldConfig",
    "BlurConfig",
    "BrightnessConfig",
    "ContrastConfig",
    "DataConfig",
    "DistillConfig",
    "GammaConfig",
    "HueConfig",
    "IntensityConfig",
    "Key",
    "Labels",
    "LossConfig",
    "LossTerm",
    "LowResolutionConfig",
    "NetConfig",
    "NetOptions",
    "NoiseConfig",
    "Overlap",
    "PatchSize",
    "PlanConfig",
    "PluginConfig",
    "PostprocessConfig",
    "PredictionConfig",
    "RandomWindowConfig",
    "Range",
    "RunConfig",
    "SaturationConfig",
    "SelectRule",
    "SemiConfig",
    "SharpenConfig",
    "Spacing",
    "SplitConfig",
    "TrainingConfig",
    "WeakConfig",
    "WindowConfig",
    "all_keys",
    "config_from_values",
    "entry_keys",
    "is_known",
    "keys_meant",
    "load_config",
    "nearest_keys",
    "packaged",
    "packaged_configs",
    "packaged_presets",
    "parse_overrides",
    "parse_yaml",
    "read_text",
    "validate_model",
]
