"""The configuration of a run: its parts as models, read from YAML and overrides."""

from __future__ import annotations

from medseg.config.keys import Key, all_keys, is_known, keys_meant, nearest_keys
from medseg.config.loading import (
    MOST_LIST_BYTES,
    config_from_values,
    load_config,
    packaged,
    packaged_configs,
    packaged_presets,
    parse_overrides,
    parse_yaml,
    read_text,
    validate_model,
)
from medseg.config.models import (
    AugmentationConfig,
    DataConfig,
    LossConfig,
    NetConfig,
    PlanConfig,
    PostprocessConfig,
    PredictionConfig,
    RunConfig,
    SplitConfig,
    TrainingConfig,
    WindowConfig,
)

__all__ = [
    "MOST_LIST_BYTES",
    "AugmentationConfig",
    "DataConfig",
    "Key",
    "LossConfig",
    "NetConfig",
    "PlanConfig",
    "PostprocessConfig",
    "PredictionConfig",
    "RunConfig",
    "SplitConfig",
    "TrainingConfig",
    "WindowConfig",
    "all_keys",
    "config_from_values",
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
