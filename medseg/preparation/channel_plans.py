"""How each channel of a data set is normalised: what `data.normalization` asks for, or what suits the data."""

from __future__ import annotations

from medseg.config import RunConfig
from medseg.errors import ConfigError
from medseg.preparation.background import background_of_set
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.nnunet_names import kind_of_nnunet_name
from medseg.preparation.plan_fields import ChannelPlan
from medseg.windowing import PRESETS

__all__ = ["IMAGENET", "are_photographs", "asked_kinds", "channel_plan", "kind_in_words"]

# Mean and standard deviation of red, green and blue over ImageNet, grey levels from 0 to 1: what torchvision's weights
# were trained with (torchvision.transforms, "Models and pre-trained weights").
IMAGENET = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
BRIGHTEST = 255
COLOURS = (("red", "green", "blue"), ("r", "g", "b"))


def asked_kinds(config: RunConfig, channels: int) -> tuple[str, ...]:
    """`data.normalization` per channel.

    Raises:
        ConfigError: if it names another number of channels.
    """
    asked = config.data.normalization
    if isinstance(asked, str):
        return (asked,) * channels
    if len(asked) != channels:
        raise ConfigError(f"data.normalization names {len(asked)} channels, but the images have {channels}")
    return asked


def kind_in_words(plan: ChannelPlan) -> str:
    """What `data.normalization` calls the kind of a channel."""
    return "imagenet" if plan.kind == "rgb" and plan.mean is not None else plan.kind


def channel_plan(fingerprint: Fingerprint, config: RunConfig, channel: int, modality: str) -> ChannelPlan:
    """How a channel is normalised.

    Args:
        fingerprint: of the data set.
        config: its `data.normalization` and `data.window` are kept; 'auto' leaves the choice to the data.
        channel: which one, counted from 0.
        modality: 'CT', another one, or '' where it is not known.

    Raises:
        ConfigError: where the grey levels do not fit what is asked for.
    """
    kind = asked_kinds(config, fingerprint.in_channels)[channel]
    if kind == "auto":
        kind = _suitable(fingerprint, config, channel, modality)
    if kind == "window":
        return _window(config)
    if kind == "clip":
        return _clip(fingerprint, channel)
    if kind in ("rgb", "imagenet"):
        return _colour(fingerprint, channel, kind)
    if kind == "zscore":
        background = background_of_set(fingerprint.frames(channel))
        return ChannelPlan(kind="zscore", region="all" if background is None else "foreground", background=background)
    return ChannelPlan(kind="unit" if kind == "unit" else "none")


def _suitable(fingerprint: Fingerprint, config: RunConfig, channel: int, modality: str) -> str:
    named = config.data.modality
    # With modalities named per channel, a window in HU is for the CT among them (PET/CT).
    elsewhere = isinstance(named, tuple) and "CT" in named and modality != "CT"
    if config.data.window is not None and not elsewhere:
        return "window"
    named_kind = (
        kind_of_nnunet_name(fingerprint.channel_names[channel]) if fingerprint.channel_names[channel:] else None
    )
    if named_kind is not None:
        return named_kind
    if modality == "CT" and _has_contrast(fingerprint, channel):
        return "clip"
    return "imagenet" if _starts_from_public_weights(config) and are_photographs(fingerprint) else "zscore"


def _starts_from_public_weights(config: RunConfig) -> bool:
    """Whether `training.init` is a file of weights; a folder or a zip is a bundle."""
    init = config.training.init
    return init is not None and init.suffix != ".zip" and not init.is_dir()


def are_photographs(fingerprint: Fingerprint) -> bool:
    """Whether all images are 2D with red, green and blue of 8 bits, as far as names and grey levels tell."""
    names = tuple(name.lower() for name in fingerprint.channel_names if name)
    if fingerprint.dims != 2 or fingerprint.in_channels != len(IMAGENET) or (len(names) > 1 and names not in COLOURS):
        return False
    channels = [each for case in fingerprint.cases for each in case.channels]
    return all(each.whole_numbers and each.minimum >= 0 and each.maximum <= BRIGHTEST for each in channels)


def _window(config: RunConfig) -> ChannelPlan:
    window = config.data.window
    assert window is not None  # the configuration refuses 'window' without one
    if isinstance(window, str):
        center, width, linear = PRESETS[window].center_hu, PRESETS[window].width_hu, True
    else:
        center, width, linear = window.center, window.width, window.function == "LINEAR"
    if linear:
        # PS3.3 C.11.2.1.2: the window spans width - 1 grey levels around center - 0.5.
        center, width = center - 0.5, width - 1
    if width <= 0:
        raise ConfigError("data.window: a width of 1 is a threshold, which leaves nothing to learn from; widen it")
    low = center - width / 2
    return ChannelPlan(kind="window", low=low, high=low + width, mean=low, std=width)


def _has_contrast(fingerprint: Fingerprint, channel: int) -> bool:
    low, high, _, std = _rounded(fingerprint, channel)
    return low < high and std > 0


def _rounded(fingerprint: Fingerprint, channel: int) -> tuple[float, float, float, float]:
    low, high, mean, std = (round(v, 4) for v in fingerprint.foreground(channel))
    return low, high, mean, std


def _clip(fingerprint: Fingerprint, channel: int) -> ChannelPlan:
    low, high, mean, std = _rounded(fingerprint, channel)
    if not _has_contrast(fingerprint, channel):
        raise ConfigError(
            f"data.normalization is 'clip', but the labelled voxels of channel {channel + 1} all have the grey level "
            f"{low:g}, which gives no range to clip to; choose zscore"
        )
    return ChannelPlan(kind="clip", low=low, high=high, mean=mean, std=std)


def _colour(fingerprint: Fingerprint, channel: int, kind: str) -> ChannelPlan:
    for case in fingerprint.cases:
        low, high = case.channels[channel].minimum, case.channels[channel].maximum
        if low < 0 or high > BRIGHTEST:
            raise ConfigError(
                f"data.normalization is {kind!r}, which takes grey levels from 0 to {BRIGHTEST}, but case {case.name} "
                f"has {low:g} to {high:g}; choose zscore or unit, or convert the images to 8 bits"
            )
    if kind == "rgb":
        return ChannelPlan(kind="rgb")
    if fingerprint.in_channels != len(IMAGENET):
        raise ConfigError(
            f"data.normalization is 'imagenet', which is for red, green and blue, but the images have "
            f"{fingerprint.in_channels} channel(s); choose rgb or zscore"
        )
    mean, std = IMAGENET[channel]
    return ChannelPlan(kind="rgb", mean=mean, std=std)
