"""Maps the names in public state dicts to those of the same parameters in the networks of this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from re import Match

__all__ = ["candidates"]

# Index within `features` of VGG-16's convolutions, by stage: the paper's names are conv1_1 ... conv5_3.
VGG = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
BOTTLENECK = {
    "reduce.conv": "conv1",
    "reduce.bn": "bn1",
    "conv3x3.conv": "conv2",
    "conv3x3.bn": "bn2",
    "increase.conv": "conv3",
    "increase.bn": "bn3",
    "shortcut.conv": "downsample.0",
    "shortcut.bn": "downsample.1",
}


def _vgg(match: Match[str]) -> str:
    indices = VGG[int(match[1])]
    n = int(match[2]) - 1
    return f"features.{indices[n]}." if n < len(indices) else match[0]


def _bottleneck(match: Match[str]) -> str:
    return f"layer{int(match[1]) - 1}.{int(match[2]) - 1}.{BOTTLENECK[match[3]]}."


# Each rule is tried on the name and on what the rules before it have made of it.
RULES: tuple[tuple[str, str | Callable[[Match[str]], str]], ...] = (
    # FCN-8s of the paper and its ports.
    (r"^conv([1-5])_([1-3])\.", _vgg),
    # DeepLab v2: the stem is its layer1.
    (r"^layer1\.conv1\.conv\.", "conv1."),
    (r"^layer1\.conv1\.bn\.", "bn1."),
    (rf"^layer([2-5])\.block(\d+)\.({'|'.join(map(re.escape, BOTTLENECK))})\.", _bottleneck),
    # DeepLab v3+: ASPP.
    (r"^aspp\.aspp1\.atrous_conv\.", "aspp.convs.0.0."),
    (r"^aspp\.aspp1\.bn\.", "aspp.convs.0.1."),
    (r"^aspp\.aspp([2-4])\.atrous_conv\.", lambda m: f"aspp.convs.{int(m[1]) - 1}.0."),
    (r"^aspp\.aspp([2-4])\.bn\.", lambda m: f"aspp.convs.{int(m[1]) - 1}.1."),
    (r"^aspp\.global_avg_pool\.", "aspp.convs.4."),
    (r"^aspp\.conv1\.", "aspp.project.0."),
    (r"^aspp\.bn1\.", "aspp.project.1."),
    # torchvision's DeepLab v3 into v3+.
    (r"^classifier\.0\.(convs|project)\.", r"aspp.\1."),
    # VGG-16's fully connected layers, the convolutions of FCN.
    (r"^classifier\.0\.(weight|bias)$", r"fc6.\1"),
    (r"^classifier\.3\.(weight|bias)$", r"fc7.\1"),
    # torchvision's segmenters hold MobileNet's features without that name.
    (r"^backbone\.(\d+)\.", r"backbone.features.\1."),
    # A segmenter's encoder into a backbone, and an encoder into a segmenter.
    (r"^backbone\.", ""),
    (r"^(?!backbone\.)", "backbone."),
)


def candidates(name: str) -> Iterator[str]:
    """Names that a network of this package may have for what a public file calls `name`, the likeliest first.

    Example:
        >>> list(candidates("conv1_2.weight"))
        ['conv1_2.weight', 'features.2.weight', 'backbone.conv1_2.weight', 'backbone.features.2.weight']
    """
    found = [name]
    yield name
    for pattern, replacement in RULES:
        for known in tuple(found):
            renamed = re.sub(pattern, replacement, known, count=1)
            if renamed not in found:
                found.append(renamed)
                yield renamed
