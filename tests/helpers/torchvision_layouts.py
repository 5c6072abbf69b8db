"""Keys and shapes of torchvision's models, spelled out from how torchvision names its modules.

Blocks and widths are those of the papers: ResNet (He et al. 2016, table 1), VGG-16 (Simonyan and Zisserman 2015,
table 1, D), MobileNetV3 (Howard et al. 2019, tables 1 and 2), FCN and DeepLabV3 heads as torchvision has them. Where
the project's own list of published keys is present, `test_pretrained.py` compares them.
"""

from __future__ import annotations

Shapes = dict[str, list[int]]

# Blocks of each stage, and convolutions of a block.
RESNETS = {
    "resnet18": ((2, 2, 2, 2), 2),
    "resnet34": ((3, 4, 6, 3), 2),
    "resnet50": ((3, 4, 6, 3), 3),
    "resnet101": ((3, 4, 23, 3), 3),
}
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
# Kernel, expanded channels, channels out, squeeze-and-excitation.
SMALL = [
    (3, 16, 16, True),
    (3, 72, 24, False),
    (3, 88, 24, False),
    (5, 96, 40, True),
    (5, 240, 40, True),
    (5, 240, 40, True),
    (5, 120, 48, True),
    (5, 144, 48, True),
    (5, 288, 96, True),
    (5, 576, 96, True),
    (5, 576, 96, True),
]
LARGE = [
    (3, 16, 16, False),
    (3, 64, 24, False),
    (3, 72, 24, False),
    (5, 72, 40, True),
    (5, 120, 40, True),
    (5, 120, 40, True),
    (3, 240, 80, False),
    (3, 200, 80, False),
    (3, 184, 80, False),
    (3, 184, 80, False),
    (3, 480, 112, True),
    (3, 672, 112, True),
    (5, 672, 160, True),
    (5, 960, 160, True),
    (5, 960, 160, True),
]


def published_layouts() -> dict[str, Shapes]:
    """Name of the model -> key -> shape, in the order of its state dict."""
    encoders = {name: _resnet(*layout) for name, layout in RESNETS.items()}
    encoders |= {
        "vgg16": _vgg16(),
        "mobilenet_v3_small": _mobilenet(SMALL, 1024),
        "mobilenet_v3_large": _mobilenet(LARGE, 1280),
    }
    whole = dict(encoders)
    for backbone in ("resnet50", "resnet101"):
        for kind, head in (("fcn", _fcn_head("classifier", 2048)), ("deeplabv3", _deeplab_head(2048))):
            inner = _inside(encoders[backbone], "fc.")
            whole[f"{kind}_{backbone}"] = inner | head | _fcn_head("aux_classifier", 1024)
    inner = {key.replace("features.", ""): shape for key, shape in encoders["mobilenet_v3_large"].items()}
    inner = _inside(inner, "classifier.")
    head = _deeplab_head(960) | _fcn_head("aux_classifier", 40)
    return whole | {"deeplabv3_mobilenet_v3_large": inner | head}


def _inside(encoder: Shapes, head: str) -> Shapes:
    return {f"backbone.{key}": shape for key, shape in encoder.items() if not key.startswith(head)}


def _resnet(stages: tuple[int, ...], convolutions: int) -> Shapes:
    shapes = _conv("conv1", 64, 3, 7) | _norm("bn1", 64)
    into = 64
    sizes = (3, 3) if convolutions == 2 else (1, 3, 1)
    for stage, blocks in enumerate(stages):
        width = 64 * 2**stage
        out = width if convolutions == 2 else 4 * width
        for block in range(blocks):
            key = f"layer{stage + 1}.{block}"
            widths = [into, *[width] * (convolutions - 1), out]
            for n, size in enumerate(sizes):
                shapes |= _conv(f"{key}.conv{n + 1}", widths[n + 1], widths[n], size)
                shapes |= _norm(f"{key}.bn{n + 1}", widths[n + 1])
            if into != out or (stage and not block):
                shapes |= _conv(f"{key}.downsample.0", out, into, 1) | _norm(f"{key}.downsample.1", out)
            into = out
    return shapes | _linear("fc", 1000, into)


def _vgg16() -> Shapes:
    shapes: Shapes = {}
    place, into = 0, 3
    for out in VGG16:
        if out:
            shapes |= _conv(f"features.{place}", out, into, 3, bias=True)
            into = out
        # A convolution and its ReLU, or one pooling.
        place += 2 if out else 1
    return (
        shapes
        | _linear("classifier.0", 4096, 25088)
        | _linear("classifier.3", 4096, 4096)
        | _linear("classifier.6", 1000, 4096)
    )


def _mobilenet(blocks: list[tuple[int, int, int, bool]], hidden: int) -> Shapes:
    shapes = _conv("features.0.0", 16, 3, 3) | _norm("features.0.1", 16)
    into = 16
    for number, (size, wide, out, squeeze) in enumerate(blocks, start=1):
        layers = []
        if wide != into:
            layers.append(_conv("0", wide, into, 1) | _norm("1", wide))
        layers.append(_conv("0", wide, 1, size) | _norm("1", wide))
        if squeeze:
            # A quarter, rounded to a multiple of 8 that is not below nine tenths of it.
            few = max(8, (wide // 4 + 4) // 8 * 8)
            few += 8 * (few < 0.9 * (wide // 4))
            layers.append(_conv("fc1", few, wide, 1, bias=True) | _conv("fc2", wide, few, 1, bias=True))
        layers.append(_conv("0", out, wide, 1) | _norm("1", out))
        for n, layer in enumerate(layers):
            shapes |= {f"features.{number}.block.{n}.{key}": shape for key, shape in layer.items()}
        into = out
    last = f"features.{len(blocks) + 1}"
    shapes |= _conv(f"{last}.0", 6 * into, into, 1) | _norm(f"{last}.1", 6 * into)
    return shapes | _linear("classifier.0", hidden, 6 * into) | _linear("classifier.3", 1000, hidden)


def _fcn_head(key: str, into: int) -> Shapes:
    few = into // 4
    return _conv(f"{key}.0", few, into, 3) | _norm(f"{key}.1", few) | _conv(f"{key}.4", 21, few, 1, bias=True)


def _deeplab_head(into: int) -> Shapes:
    shapes: Shapes = {}
    for n, size in enumerate((1, 3, 3, 3)):
        key = f"classifier.0.convs.{n}"
        shapes |= _conv(f"{key}.0", 256, into, size) | _norm(f"{key}.1", 256)
    shapes |= _conv("classifier.0.convs.4.1", 256, into, 1) | _norm("classifier.0.convs.4.2", 256)
    shapes |= _conv("classifier.0.project.0", 256, 1280, 1) | _norm("classifier.0.project.1", 256)
    shapes |= _conv("classifier.1", 256, 256, 3) | _norm("classifier.2", 256)
    return shapes | _conv("classifier.4", 21, 256, 1, bias=True)


def _conv(key: str, out: int, into: int, size: int, bias: bool = False) -> Shapes:
    return {f"{key}.weight": [out, into, size, size], **({f"{key}.bias": [out]} if bias else {})}


def _norm(key: str, channels: int) -> Shapes:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{kind}": [channels] for kind in kinds} | {f"{key}.num_batches_tracked": []}


def _linear(key: str, out: int, into: int) -> Shapes:
    return {f"{key}.weight": [out, into], f"{key}.bias": [out]}
