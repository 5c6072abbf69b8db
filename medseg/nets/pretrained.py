"""Loading public weights: ImageNet encoders and COCO segmenters, 2D files into 2D and 3D networks.

Supported layouts: torchvision's (resnet, vgg, mobilenet_v3, fcn_resnet, deeplabv3), and those of the public
FCN-8s (`conv1_1`), DeepLab v2 (`layer2.block1.reduce.conv`) and v3+ (`aspp.aspp1.atrous_conv`) in PyTorch.
2D kernels become 3D as in Carreira and Zisserman, CVPR 2017 ('mean'), or as their middle slice ('centre').
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medseg.errors import CheckpointError
from medseg.lookup import check_choice
from medseg.nets.pretrained_keys import candidates
from medseg.nets.weights_file import load_safetensors, load_torch_file

__all__ = ["PretrainedReport", "load_pretrained", "weight_names"]

WRAPPERS = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights within a file


@dataclass(frozen=True, slots=True)
class PretrainedReport:
    """What happened to each parameter and buffer, by name.

    Args:
        loaded: names in the network whose values were copied unchanged.
        adapted: names in the network whose values were changed to fit: first layer to the image channels, kernels
            inflated, fully connected layers turned into convolutions, and last layers, which keep their new weights
            where the number of classes differs.
        dropped: names in the file that could not be used.
        missing: names in the network that the file does not contain; they keep their values.
        how: for each adapted name, a description of the change.

    Example:
        >>> print(PretrainedReport(loaded=["conv1.weight"], missing=["fc.weight"]))
        1 loaded, 0 adapted, 0 dropped, 1 missing
    """

    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    how: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{len(getattr(self, name))} {name}" for name in ("loaded", "adapted", "dropped", "missing")]
        return ", ".join(parts)


def load_pretrained(
    net: nn.Module,
    state_dict_or_path: Mapping[str, Any] | str | PathLike[str],
    *,
    inflate: Literal["centre", "mean"] = "centre",
) -> PretrainedReport:
    """Load the values of a public state dict into a network or its backbone, as far as they fit.

    Args:
        net: a network or backbone of this package, 2D or 3D; it is changed in place.
        state_dict_or_path: names and tensors, or a file of them (`.pth`, `.pt`: read without running code from it;
            `.safetensors`).
        inflate: how a 2D kernel becomes 3D: 'centre' puts it into the middle slice, so that every slice gives the 2D
            features; 'mean' repeats it, divided by its depth, so that a volume constant along the last axis gives them.

    Returns:
        A report of names: loaded, adapted, dropped, missing. The image's channels change by the mean over the file's
        (RGB to one channel: the sum, as if the grey image stood in all three).

    Raises:
        CheckpointError: for a file that is absent, damaged or contains no weights, for NaN or infinite ones, and where
            nothing fits.
        ConfigError: for another `inflate`.

    Example:
        >>> from medseg.nets import build_net
        >>> grey = build_net("deeplabv3", dims=3, in_channels=1, out_channels=2, backbone="resnet18", width=0.125)
        >>> rgb = build_net("deeplabv3", dims=2, in_channels=3, out_channels=2, backbone="resnet18", width=0.125)
        >>> report = load_pretrained(grey, rgb.state_dict())
        >>> report.missing, report.how["backbone.conv1.weight"]
        ([], 'inflated by centre; 3 channels to 1')
    """
    check_choice("inflate", inflate, ("centre", "mean"))
    source, name = _read(state_dict_or_path)
    own = net.state_dict()
    fit = _Fit(net, inflate)
    report = PretrainedReport()
    taken: dict[str, Tensor] = {}
    seen: set[str] = set()
    for key, value in source.items():
        for target in (c for c in candidates(key) if c in own and c not in seen):
            fitted, how = fit(target, value, own[target].shape)
            if fitted is None and not how:
                continue
            seen.add(target)
            if fitted is None:
                report.dropped.append(key)
            else:
                taken[target] = fitted
            if how:
                report.adapted.append(target)
                report.how[target] = how
            else:
                report.loaded.append(target)
            break
        else:
            report.dropped.append(key)
    if not taken:
        raise CheckpointError(
            f"{name}: no weight fits this {type(net).__name__}; it holds {_named(source)} ..., "
            f"the net has {_named(own)} ..."
        )
    wrong = next((key for key, value in taken.items() if not torch.isfinite(value).all()), None)
    if wrong is not None:
        raise CheckpointError(f"{name}: holds NaN or infinite weights ({wrong})")
    # A count of batches is not a weight; files written by old versions of torch have none.
    report.missing.extend(key for key in own if key not in seen and not key.endswith("num_batches_tracked"))
    net.load_state_dict(taken, strict=False)
    return report


def weight_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """What a file calls its weights and buffers, without the prefixes of DistributedDataParallel and torch.compile.

    Raises:
        CheckpointError: for a file that is absent, damaged or contains no weights.
    """
    return tuple(_read(path)[0])


class _Fit:
    """Makes a value of the file fit a place in the net: `fit(name, value, shape) -> (value or None, what was done)`.

    (None, "") where it cannot; (None, "new ...") for a last layer with another number of classes.
    """

    def __init__(self, net: nn.Module, inflate: str) -> None:
        self.inflate = inflate
        kinds = nn.Conv2d | nn.Conv3d
        weights = [f"{name}.weight".removeprefix(".") for name, m in net.named_modules() if isinstance(m, kinds)]
        self.first = weights[0] if weights else ""
        outputs = [m.out_channels for m in net.modules() if isinstance(m, kinds)]
        self.classes = outputs[-1] if outputs else 0

    def __call__(self, name: str, value: Tensor, shape: torch.Size) -> tuple[Tensor | None, str]:
        done: list[str] = []
        if value.dim() == 2 and len(shape) >= 4:
            depth = value.shape[1] // max(1, shape[1])
            if value.shape != (shape[0], shape[1] * shape[2] * shape[3]):
                return None, ""
            value = value.reshape(*shape[:4])
            done.append("a convolution" if depth > 1 else "a 1x1 convolution")
        if value.dim() == 4 and len(shape) == 5 and value.shape[2:] == shape[2:4] and shape[4] % 2:
            value = _inflated(value, shape[4], self.inflate)
            done.append(f"inflated by {self.inflate}")
        if value.shape != shape and self._is_first(name, value, shape):
            done.append(f"{value.shape[1]} channels to {shape[1]}")
            value = value.mean(1, keepdim=True) * (value.shape[1] / shape[1])
            value = value.expand(shape).contiguous()
        if value.shape == shape:
            return value, "; ".join(done)
        if self._is_last(name, value, shape):
            return None, f"new, {value.shape[0]} classes to {shape[0]}"
        return None, ""

    def _is_first(self, name: str, value: Tensor, shape: torch.Size) -> bool:
        """Whether only the number of image channels differs."""
        if value.dim() < 4 or value.dim() != len(shape):
            return False
        same = value.shape[0] == shape[0] and value.shape[2:] == shape[2:]
        return same and (name == self.first or value.shape[1] == 3)

    def _is_last(self, name: str, value: Tensor, shape: torch.Size) -> bool:
        """Whether only the number of classes differs, of a convolution, its bias or a learned interpolation."""
        if name == self.first or value.dim() != len(shape) or shape[0] != self.classes:
            return False
        if value.dim() == 1:
            return name.endswith(".bias") and value.shape[0] != shape[0]
        if value.shape[2:] != shape[2:]:
            return False
        return value.shape[1] == shape[1] or (value.shape[0] == value.shape[1] and shape[0] == shape[1])


def _named(keys: Mapping[str, Any]) -> str:
    """The first names, fit for a message whatever a file calls its weights."""
    return ", ".join("".join(c if c.isprintable() else "?" for c in key[:80]) for key in islice(keys, 3))


def _inflated(kernel: Tensor, depth: int, how: str) -> Tensor:
    """`(O, I, i, j)` to `(O, I, i, j, depth)`."""
    if how == "mean":
        return (kernel / depth)[..., None].repeat(1, 1, 1, 1, depth)
    value = kernel.new_zeros(*kernel.shape, depth)
    value[..., depth // 2] = kernel
    return value


def _read(source: Mapping[str, Any] | str | PathLike[str]) -> tuple[dict[str, Tensor], str]:
    """Names and tensors, and what to call their origin in a message."""
    if isinstance(source, Mapping):
        content: Any = source
        name = "state dict"
    else:
        path = Path(source)
        name = str(path)
        if not path.is_file():
            raise CheckpointError(f"{name}: no such file; expected weights as .pth, .pt or .safetensors")
        content = _read_file(path)
    for _ in WRAPPERS:  # one may lie in another
        if isinstance(content, Mapping):
            content = next((content[w] for w in WRAPPERS if isinstance(content.get(w), Mapping)), content)
    tensors = dict(_tensors(content, name)) if isinstance(content, Mapping) else {}
    if not tensors:
        raise CheckpointError(
            f"{name}: contains no weights; expected names and tensors, as net.state_dict() gives them"
        )
    return tensors, name


def _read_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    return load_torch_file(path, "expected what torch.save(net.state_dict()) writes")


def _tensors(content: Mapping[Any, Any], name: str) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_meta or value.nbytes > value.untyped_storage().nbytes():
                # A hostile file may name a tensor of any size without holding its numbers.
                raise CheckpointError(f"{name}: {key[:80]!r} is larger than what the file holds of it")
            # Prefixes of DistributedDataParallel and torch.compile.
            yield key.removeprefix("module.").removeprefix("_orig_mod."), value.detach()
