"""The configuration of a run: its parts as models, read from YAML and overrides."""

from __future__ import annotations

from medseg.config.loading import (
    MOST_LIST_BYTES,
    config_from_values,
    load_config,
    packaged,
    packaged_configs,
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
    "LossConfig",
    "NetConfig",
    "PlanConfig",
    "PostprocessConfig",
    "PredictionConfig",
    "RunConfig",
    "SplitConfig",
    "TrainingConfig",
    "WindowConfig",
    "config_from_values",
    "load_config",
    "packaged",
    "packaged_configs",
    "parse_overrides",
    "parse_yaml",
    "read_text",
    "validate_model",
]
