"""Settings of the intensity changes: of each its name, defaults, bounds and meaning, stated once.

`medseg.augmentation.CHANGES` holds the class that carries each of them out. Probabilities are per sample; strengths
are drawn uniformly within the range given, one per channel. Defaults of the first six follow nnU-Net (Isensee et al.
2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from medseg.config.part import Fraction, Part, Range, ascending
from medseg.lookup import nearest_hint
from medseg.plugins import is_plugin

__all__ = [
    "BiasFieldConfig",
    "BlurConfig",
    "BrightnessConfig",
    "ContrastConfig",
    "ExtraAugmentation",
    "GammaConfig",
    "HueConfig",
    "IntensityConfig",
    "LowResolutionConfig",
    "NoiseConfig",
    "PluginConfig",
    "RandomWindowConfig",
    "SaturationConfig",
    "SharpenConfig",
    "Standard",
    "SynthesisConfig",
    "Zoom",
]

Standard = Annotated[float, Field(ge=0)]
"""A standard deviation in units of the normalised image."""
Zoom = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], AfterValidator(ascending)
]
"""Two zooms above 0 and at most 1, the smaller first."""


class NoiseConfig(Part):
    """White Gaussian noise, independent in every voxel.

    `probability`: share of the samples that get noise. `std`: largest standard deviation, in units of the normalised
    image; each channel draws its own between 0 and this.
    """

    name: Literal["noise"] = "noise"
    probability: Fraction = 0.15
    std: Standard = 0.15


class BlurConfig(Part):
    """Gaussian blur.

    `probability`: share of the samples that are blurred. `sigma`: range of the standard deviation, in voxels.
    """

    name: Literal["blur"] = "blur"
    probability: Fraction = 0.1
    sigma: Range = (0.5, 1.0)


class BrightnessConfig(Part):
    """All values times a factor.

    `probability`: share of the samples that are changed. `factor`: range of the factor.
    """

    name: Literal["brightness"] = "brightness"
    probability: Fraction = 0.15
    factor: Range = (0.75, 1.25)


class ContrastConfig(Part):
    """The distance of all values from their channel's mean times a factor; minimum and maximum are kept as limits.

    `probability`: share of the samples that are changed. `factor`: range of the factor.
    """

    name: Literal["contrast"] = "contrast"
    probability: Fraction = 0.15
    factor: Range = (0.75, 1.25)


class LowResolutionConfig(Part):
    """A coarser image: reduced by nearest neighbour and enlarged again linearly.

    `probability`: share of the samples that are changed. `zoom`: range of the factor of the size, at most 1.
    """

    name: Literal["low_resolution"] = "low_resolution"
    probability: Fraction = 0.1
    zoom: Zoom = (0.5, 1.0)


class GammaConfig(Part):
    """Values between minimum and maximum raised to an exponent; mean and standard deviation are kept.

    `probability`: share of the samples that are changed. `exponent`: range of the exponent, drawn log-uniformly; in
    half of these samples it acts on the inverted image.
    """

    name: Literal["gamma"] = "gamma"
    probability: Fraction = 0.25
    exponent: Range = (0.7, 1.5)


class SharpenConfig(Part):
    """An unsharp mask: the difference to the blurred image, added.

    `probability`: share of the samples that are sharpened. `amount`: range of the factor of the difference. `sigma`:
    standard deviation of the Gaussian that blurs, in voxels.
    """

    name: Literal["sharpen"] = "sharpen"
    probability: Fraction = 0.15
    amount: Range = (0.3, 1.5)
    sigma: Annotated[float, Field(gt=0, le=10)] = 1.0


class BiasFieldConfig(Part):
    """The smooth shading of MR coils: the distance of all values from their channel's minimum times a smooth field.

    The field is exp(polynomial of the place) along axes from -1 to 1, as in TorchIO's RandomBiasField (Van Leemput et
    al. 1999). `probability`: share of the samples that are shaded. `coefficient`: largest coefficient of the
    polynomial, in either direction; each channel draws its own strength between 0 and this. `order`: its degree.
    """

    name: Literal["bias_field"] = "bias_field"
    probability: Fraction = 0.3
    coefficient: Annotated[float, Field(ge=0, le=5)] = 0.5
    order: Annotated[int, Field(ge=1, le=6)] = 3


class RandomWindowConfig(Part):
    """Another window on the grey levels as stored, drawn around the one of the plan; the colour jitter of CT.

    It acts before normalisation, so that grey levels beyond the plan's window come into view. It needs channels that
    are normalised by a range: window, clip, unit or rgb. `probability`: share of the samples that get another window.
    `shift`: largest move of the centre, up or down, as a fraction of the plan's width. `width`: range of the factor of
    the width, drawn log-uniformly.
    """

    name: Literal["random_window"] = "random_window"
    probability: Fraction = 0.5
    shift: Annotated[float, Field(ge=0, le=1)] = 0.1
    width: Range = (0.8, 1.25)


class HueConfig(Part):
    """Colours turned around the axis from black to white; for photographs of red, green and blue alone.

    It acts before normalisation. `probability`: share of the samples that are changed. `turn`: largest turn in either
    direction, as a fraction of a full one.
    """

    name: Literal["hue"] = "hue"
    probability: Fraction = 0.5
    turn: Annotated[float, Field(ge=0, le=0.5)] = 0.05


class SaturationConfig(Part):
    """The distance of all colours from their grey times a factor; for photographs of red, green and blue alone.

    It acts before normalisation. `probability`: share of the samples that are changed. `factor`: range of the factor,
    drawn log-uniformly.
    """

    name: Literal["saturation"] = "saturation"
    probability: Fraction = 0.5
    factor: Range = (0.7, 1.4)


class SynthesisConfig(Part):
    """Samples whose grey levels are drawn anew from their labels, for models that must hold on other contrasts.

    It acts before all other changes of grey levels, wherever it stands in the list. `probability`: share of the
    samples that are drawn; the others stay real. `labels`: share of the labels that get a random grey level of their
    own; the others follow the background's curve. `background_levels`: the most random levels that this curve goes
    through; 2 are the real contrast or its inverse. `texture`: how much of the real texture a label with a level of
    its own keeps at most, as a fraction of the range of levels for each standard deviation of the image.
    """

    name: Literal["synthesis"] = "synthesis"
    probability: Fraction = 0.5
    labels: Fraction = 0.5
    background_levels: Annotated[int, Field(ge=2, le=64)] = 5
    texture: Fraction = 0.3


class PluginConfig(Part):
    """An augmentation of your own; it may change image and labels.

    `name`: of your builder, as package.module:builder. `options`: keyword arguments of the builder.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


IntensityConfig = (
    NoiseConfig
    | BlurConfig
    | BrightnessConfig
    | ContrastConfig
    | LowResolutionConfig
    | GammaConfig
    | SharpenConfig
    | BiasFieldConfig
    | RandomWindowConfig
    | HueConfig
    | SaturationConfig
)
"""Settings of any built-in intensity change."""


def _kind(entry: Any) -> str:
    name = _name(entry)
    return "plugin" if isinstance(name, str) and is_plugin(name) else "built-in"


def _name(entry: Any) -> Any:
    return entry.get("name") if isinstance(entry, Mapping) else getattr(entry, "name", None)


def _known(entry: Any) -> Any:
    name, names = _name(entry), [config.model_fields["name"].default for config in get_args(_ListedConfig)]
    if _kind(entry) == "built-in" and name not in names:
        listed = f"{', '.join(names)}, or your own as package.module:builder"
        if name is None:
            raise ValueError(f"expected a mapping with a name, which is one of {listed}")
        raise ValueError(f"unknown augmentation {name!r}; known are {listed}{nearest_hint(name, names)}")
    return entry


_ListedConfig = IntensityConfig | SynthesisConfig
_BuiltIn = Annotated[_ListedConfig, Field(discriminator="name")]
ExtraAugmentation = Annotated[
    Annotated[_BuiltIn, Tag("built-in")] | Annotated[PluginConfig, Tag("plugin")],
    Discriminator(_kind),
    BeforeValidator(_known),
]
"""An entry of `augmentation.extra`: the settings of a built-in change, or an augmentation of one's own."""
