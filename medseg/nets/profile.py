"""Parameters, operations, memory and receptive field of each network: the table of `medseg nets`.

Counted on the meta device, where nothing is computed: parameters at full width; operations (a multiply-add is 2) of
convolutions and matrix products; the most bytes of maps alive at once in inference, plus the weights. The receptive
field is the support of the input's gradient, measured on a narrow copy. B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from medseg import net_catalogue
from medseg.errors import ConfigError
from medseg.lookup import check_choice, nearest_hint
from medseg.nets import BACKBONES, NETS, build_net
from medseg.nets.instance_norm import InstanceNorm

__all__ = ["NetProfile", "NetTable", "build_on_meta", "forward_bytes", "profile_nets", "training_bytes"]

SIZE_2D = (256, 256)
SIZE_3D = (64, 64, 64)
# Long images, narrow across, on which the support of the gradient is measured; longer only where the first is covered.
LENGTHS, ACROSS, NARROW = (512, 2048), 32, 1 / 16
HEADINGS = ("net", "backbone", "dims", "parameters", "GFLOPs", "field", "stride", "coarsest", "memory")


@dataclass(frozen=True, slots=True)
class NetProfile:
    """One network.

    Args:
        name, backbone, dims: which; backbone '' where there is no choice.
        parameters: number of learned parameters.
        gflops: 10^9 operations of one image of `size` (a multiply-add is 2).
        receptive_field: voxels along an axis that one output voxel depends on; None: the whole image. The statistics of
            instance and group norms, which depend on the whole image, are not counted.
        output_stride: of the map on which the last convolution works.
        coarsest_stride: of the smallest map, global means apart.
        memory_mb: weights and the maps alive at once, inference, batch 1, float32.
        size: of the image.
    """

    name: str
    backbone: str
    dims: int
    parameters: int
    gflops: float
    receptive_field: int | None
    output_stride: int
    coarsest_stride: int
    memory_mb: float
    size: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NetTable:
    """Profiles of several networks, as `profile_nets` gives them."""

    rows: tuple[NetProfile, ...]
    width: float

    def to_json(self) -> str:
        """JSON with `format_version`, one object per network; `receptive_field` null: the whole image."""
        content = {"format_version": 1, "width": self.width, "nets": [asdict(row) for row in self.rows]}
        return json.dumps(content, indent=2)

    def text(self) -> str:
        """A table and what its columns mean."""
        cells = [HEADINGS, *(_cells(row) for row in self.rows)]
        widths = [max(len(row[n]) for row in cells) for n in range(len(HEADINGS))]
        lines = [
            "  ".join(
                cell.ljust(w) if n < 3 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        sizes = ", ".join(dict.fromkeys(" x ".join(map(str, row.size)) for row in self.rows))
        return "\n".join(line.rstrip() for line in lines) + (
            f"\n\n1 channel, 2 classes, width {self.width:g}, images of {sizes} voxels. GFLOPs: a multiply-add is 2. "
            "Field: voxels along an axis\nthat an output voxel depends on. Stride: of the map that the logits are "
            "computed on; coarsest: of the smallest map.\nMemory: inference, batch 1, float32, estimated from the maps "
            "alive at once, plus weights; training keeps all maps."
        )


def profile_nets(
    size_2d: Sequence[int] = SIZE_2D,
    size_3d: Sequence[int] = SIZE_3D,
    names: Sequence[str] | None = None,
    backbone: str | None = None,
    width: float = 1.0,
    progress: Callable[[float, float, str], None] | None = None,
) -> NetTable:
    """Parameters, operations, receptive field, stride and memory of networks, 2D and 3D.

    Args:
        size_2d, size_3d: voxels of the image.
        names: which nets (keys of `NETS`); None: all of them.
        backbone: for nets with a choice: one of `BACKBONES`, or 'all'; None: each net's default.
        width: multiplies the features.
        progress: called with (nets looked at, nets, name).

    Raises:
        ConfigError: for an unknown net or backbone, or an invalid size.

    Example:
        >>> row = profile_nets(names=["enet"]).rows[0]
        >>> row.name, row.dims, row.parameters
        ('enet', 2, 348996)
    """
    for key, size, dims in (("size_2d", size_2d, 2), ("size_3d", size_3d, 3)):
        if len(size) != dims or min(size) < 1:
            raise ConfigError(f"{key} is {list(size)}; expected {dims} positive numbers of voxels")
    if backbone is not None:
        check_choice("backbone", backbone, ("all", *BACKBONES))
    wanted = [(name, each) for name in names or NETS for each in _backbones(name, backbone)]
    rows = []
    for n, (name, each) in enumerate(wanted):
        if progress is not None:
            progress(n, len(wanted), name)
        field = _receptive_field(name, each)
        for dims, size in ((2, size_2d), (3, size_3d)):
            rows.append(_profile(name, each, dims, tuple(size), width, field))
    return NetTable(tuple(rows), width)


def build_on_meta(name: str, *, dims: int, in_channels: int = 1, out_channels: int = 2, **options: Any) -> nn.Module:
    """`build_net` on the meta device, without memory for weights.

    A builder of your own that needs actual values of weights is run in memory and its network moved.

    Raises:
        ConfigError: as `build_net`.

    Example:
        >>> build_on_meta("enet", dims=2).head.weight.device
        device(type='meta')
    """
    options |= {"dims": dims, "in_channels": in_channels, "out_channels": out_channels}
    try:
        with torch.device("meta"), _NoNumbers():
            return build_net(name, **options)
    except RuntimeError:
        if name in NETS:
            raise
        return build_net(name, **options).to("meta")


def forward_bytes(net: nn.Module, shape: Sequence[int]) -> int:
    """Most bytes of maps that a forward pass holds at once, float32, without the weights.

    Args:
        net: on the meta device; it is left in evaluation mode.
        shape: `(B, C, I, J[, K])` of the input.

    Example:
        >>> net = nn.Conv2d(1, 4, 3, padding=1).to("meta")
        >>> forward_bytes(net, (1, 1, 8, 8)) == 4 * (1 + 4) * 8 * 8
        True
    """
    cost = _Cost()
    with torch.no_grad(), torch.device("meta"), cost:
        net.eval()(torch.empty(*shape))
    return cost.peak


def training_bytes(net: nn.Module, shape: Sequence[int]) -> int:
    """Bytes of float32 maps that the forward pass of a training step keeps for back-propagation, without the weights.

    Each block of memory that autograd saves is counted once, however many operations or views save it. Nothing is
    computed, so the count is the same on every machine. The gradients of the backward pass are not included.

    Args:
        net: on the meta device; it is left in training mode.
        shape: `(B, C, I, J[, K])` of the input.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()).to("meta")
        >>> training_bytes(net, (1, 1, 8, 8)) == 4 * (1 + 4) * 8 * 8  # the image and the output of the ReLU
        True
    """
    kept = {t.untyped_storage()._cdata for t in (*net.parameters(), *net.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in kept:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.device("meta"):
        graph = net.train()(torch.empty(*shape))  # alive until the end, so that no storage is counted as another
    del graph
    return sum(saved.values())


def _backbones(name: str, backbone: str | None) -> list[str]:
    if name not in net_catalogue.NETS:
        raise ConfigError(f"net {name!r} is not known; there are: {', '.join(NETS)}{nearest_hint(name, NETS)}")
    entry = net_catalogue.NETS[name]
    if backbone == "all" and entry.backbone:
        return list(entry.backbones or BACKBONES)
    return [(backbone or entry.backbone) if entry.backbone else ""]


def _profile(name: str, backbone: str, dims: int, size: tuple[int, ...], width: float, field: int | None) -> NetProfile:
    chosen: dict[str, Any] = {"backbone": backbone} if backbone else {}
    net = build_on_meta(name, dims=dims, width=width, **chosen).eval()
    strides: list[tuple[int, int]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        strides.append((_stride(size, given[0].shape[2:]), _stride(size, out.shape[2:])))

    kinds = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
    for module in net.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(note)
    cost = _Cost()
    with torch.no_grad(), torch.device("meta"), cost:
        net(torch.empty(1, 1, *size))
    weights = sum(t.numel() * t.element_size() for t in (*net.parameters(), *net.buffers()))
    return NetProfile(
        name=name,
        backbone=backbone,
        dims=dims,
        parameters=sum(p.numel() for p in net.parameters()),
        gflops=round(cost.operations / 1e9, 3),
        receptive_field=field,
        output_stride=strides[-1][0],
        coarsest_stride=max(after for _, after in strides),
        memory_mb=round((cost.peak + weights) / 1e6, 1),
        size=size,
    )


def _stride(size: Sequence[int], found: Sequence[int]) -> int:
    """Power of two between the image and a map along the longest axis; 0 for a global mean, which is not a map."""
    if all(n == 1 for n in found) and max(size) > 1:
        return 0
    axis = max(range(len(size)), key=lambda a: size[a])
    return int(2 ** max(0, round(math.log2(size[axis] / found[axis]))))


class _NoNumbers(TorchFunctionMode):
    """Weights on the meta device are not drawn: torch would import its compiler to draw nothing.

    Short lists of numbers that a builder takes apart at once (MONAI's rates of dropped paths) stay in memory.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) and args[0].is_meta:
            return args[0]
        if func is nn.init.normal_:  # which calls the above where no mode sees it any more
            given = args[0] if args else (kwargs or {})["tensor"]
            if given.is_meta:
                return given
        if func is torch.linspace:
            return func(*args, **{**(kwargs or {}), "device": "cpu"})
        return func(*args, **(kwargs or {}))


class _Cost(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations of convolutions and matrix products, and the most bytes held at once of tensors made within."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.peak = 0
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_group_norm.default:
            out = _group_norm_shapes(*args)
        else:
            out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=out)
        gone = [key for key, (kept, _) in self.held.items() if kept.expired()]  # type: ignore[no-untyped-call]
        for key in gone:
            del self.held[key]
        before = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in before:
                    weak = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                    self.held.setdefault(storage._cdata, (weak, storage.nbytes()))
        self.peak = max(self.peak, sum(n for _, n in self.held.values()))
        return out


def _group_norm_shapes(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """What `native_group_norm` gives, empty; torch works that out in Python, which took a third of a table's time."""
    batch, groups = x.shape[0], rest[5]
    return torch.empty_like(x), x.new_empty(batch, groups), x.new_empty(batch, groups)


def _receptive_field(name: str, backbone: str) -> int | None:
    """Rows of a 2D image whose values move the logits of its middle row; None where that is all of them."""
    known = inspect.signature(NETS[name]).parameters
    options: dict[str, Any] = {"backbone": backbone} if backbone else {}
    options |= {"norm": "batch"} if "norm" in known else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(name, dims=2, in_channels=1, out_channels=1, width=NARROW, **options).eval()
        _without_image_norms(net)
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    # Positive weights whose sums stay near 1: no ReLU is dead, and no two paths cancel.
                    fan = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.weight[:, 0].numel()
                    module.weight.uniform_(0.5, 1.5).div_(fan)
                elif isinstance(module, nn.BatchNorm2d):
                    module.weight.fill_(1.0)  # some residual blocks begin at zero
        field = 0
        for length in LENGTHS:
            image = torch.rand(2, 1, length, ACROSS).requires_grad_()
            net(image)[:, :, length // 2].sum().backward()
            assert image.grad is not None
            touched = image.grad.abs().amax((0, 1, 3)).nonzero()
            field = int(touched.max() - touched.min()) + 1
            if field < length - 2 * ACROSS:
                return field
    return None


def _without_image_norms(net: nn.Module) -> None:
    for module in net.modules():
        for key, child in module.named_children():
            if isinstance(child, InstanceNorm | nn.GroupNorm | nn.modules.instancenorm._InstanceNorm):
                setattr(module, key, nn.Identity())


def _cells(row: NetProfile) -> tuple[str, ...]:
    field = "image" if row.receptive_field is None else str(row.receptive_field)
    return (
        row.name,
        row.backbone,
        str(row.dims),
        f"{row.parameters / 1e6:.2f} M",
        f"{row.gflops:.1f}",
        field,
        str(row.output_stride),
        str(row.coarsest_stride),
        f"{row.memory_mb:.0f} MB",
    )
