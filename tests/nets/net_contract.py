"""What the tests of several networks share: the contract, export, and one real case to overfit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.losses import build_loss

SIZES = {2: [(17, 23), (16, 16), (5, 40)], 3: [(9, 11, 13), (8, 8, 8), (3, 17, 6)]}
# The first is the one that the export sees: its lowest map has more than one voxel along each axis, for torch.export
# takes a size of one to be always one.
EXPORT_SIZES = {2: [(72, 108), (70, 99), (64, 40)], 3: [(72, 40, 48), (70, 44, 50), (40, 72, 41)]}


def any_size_gives_finite_logits_and_gradients(
    net: nn.Module, dims: int, in_channels: int, *, heads: int = 0, sizes: list[tuple[int, ...]] | None = None
) -> None:
    """Main logits of the image's size (3 classes), `heads` auxiliary ones in training only, finite gradients."""
    for size in sizes or SIZES[dims]:
        net.train()
        image = torch.randn(2, in_channels, *size, requires_grad=True)
        out = net(image)
        assert isinstance(out, tuple) == bool(heads)
        outputs = out if isinstance(out, tuple) else (out,)
        assert len(outputs) == 1 + heads
        assert outputs[0].shape == (2, 3, *size)
        sum(o.square().mean() for o in outputs).backward()
        for key, parameter in net.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
        assert torch.isfinite(image.grad).all()
        net.zero_grad()
        net.eval()
        with torch.no_grad():
            logits = net(image)
        assert isinstance(logits, Tensor)
        assert logits.shape == (2, 3, *size)
        assert torch.isfinite(logits).all()


def layout_in_memory_does_not_matter(net: nn.Module, dims: int, in_channels: int, size: tuple[int, ...]) -> None:
    # In double: norms of maps of a few voxels enlarge what the order of a sum does to the last digit.
    net.eval().double()
    image = torch.randn(2, in_channels, *size, dtype=torch.float64)
    kept = image.clone()
    other = image.contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)
    with torch.no_grad():
        torch.testing.assert_close(net(image), net(other))
    assert torch.equal(image, kept)


def moved(net: nn.Module) -> nn.Module:
    """Every weight a little elsewhere: layers that begin at zero (FCN's scores) would compare zeros with zeros."""
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return net


def equals_but_for_rounding(found: Tensor, net: nn.Module, image: Tensor) -> None:
    """`found` is within 1e-4 of the logits in double precision, or within four times what float32 itself is off.

    Float32's distance is that of the net's own logits, of the image and of two that differ in the last digit: over few
    voxels, norms enlarge the last digits from layer to layer. Beyond 2e-3 a comparison would say nothing.
    """
    net.eval()
    with torch.no_grad():
        own = [net(image * factor) for factor in (1, 1 + 2**-23, 1 - 2**-23)]
        wanted = net.double()(image.double())
        net.float()
    largest = wanted.abs().max()
    assert largest > 0
    assert found.shape == wanted.shape
    rounding = max((logits - wanted).abs().max() for logits in own) / largest
    assert rounding < 2e-3, f"float32 is off by {rounding:.1e} of the largest logit: take a larger image"
    assert (found - wanted).abs().max() / largest < max(1e-4, 4 * rounding)


def exported_equals(net: nn.Module, dims: int, folder: Path, sizes: Sequence[tuple[int, ...]] | None = None) -> None:
    """Export with any batch and any size, and compare with ONNX Runtime at three; skipped where it is not installed."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    import onnxruntime

    net.eval()
    free = torch.export.Dim.DYNAMIC
    axes = {0: free, **dict.fromkeys(range(2, 2 + dims), free)}
    images = [torch.randn(batch, 1, *size) for batch, size in zip((2, 1, 3), sizes or EXPORT_SIZES[dims], strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own code
        program = torch.onnx.export(net, (images[0],), dynamo=True, dynamic_shapes=(axes,), verbose=False)
    program.save(str(folder / "net.onnx"))
    session = onnxruntime.InferenceSession(str(folder / "net.onnx"), providers=["CPUExecutionProvider"])
    for image in images:
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])
        equals_but_for_rounding(found, net, image)


def compiled_equals(net: nn.Module, size: tuple[int, ...]) -> None:
    net.eval()
    image = torch.randn(1, 1, *size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message="`torch.jit.", category=DeprecationWarning)  # of the compiler itself
        found = torch.compile(net)(image)
    equals_but_for_rounding(found, net, image)


def real_case(data: Path, dims: int) -> tuple[Tensor, Tensor]:
    """A piece of a real study, mean 0 and deviation 1, `(1, 1, ...)`, and its mask `(1, ...)` of 0 and 1.

    2D: retinal vessels, 64 x 64 pixels; 3D: hippocampus, 24 x 24 x 24 voxels.
    """
    if dims == 2:
        place, box = data / "vessel2d_chasedb1", (slice(400, 464), slice(300, 364))
        image = np.asarray(Image.open(place / "Image_01L.jpg"), np.float32)[(*box, 1)]
        mask = np.array(Image.open(place / "Image_01L_1stHO.png"))[box]
    else:
        name, box3 = "hippocampus_001.nii.gz", (slice(6, 30), slice(14, 38), slice(6, 30))
        image = np.asarray(nib.load(data / "hippocampus/images" / name).dataobj, np.float32)[box3]
        mask = np.asarray(nib.load(data / "hippocampus/labels" / name).dataobj)[box3] > 0
    x = torch.from_numpy((image - image.mean()) / image.std())
    return x[None, None], torch.from_numpy(mask)[None].long()


def dice(found: Tensor, truth: Tensor) -> float:
    return float(2 * (found * truth).sum() / (found.sum() + truth.sum()))


def allowed(truth: Tensor, stride: int) -> float:
    """Dice that an output stride allows: the mask as means over blocks, interpolated, at the best threshold."""
    if stride == 1:
        return 1.0
    mask = truth[None].float()
    two = mask.dim() == 4
    size, mode = list(mask.shape[2:]), "bilinear" if two else "trilinear"
    block = tuple(min(stride, n) for n in size)
    pooled = (F.avg_pool2d if two else F.avg_pool3d)(mask, block, block, ceil_mode=True)
    restored = F.interpolate(pooled, size, mode=mode, align_corners=False)
    return max(dice((restored > t).long(), mask.long()) for t in np.linspace(0.05, 0.95, 19))


def overfitted(net: nn.Module, x: Tensor, truth: Tensor, *, steps: int, learning_rate: float) -> float:
    """Dice of what a network says of the one case that it was trained on, dropout off."""
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d | nn.Dropout3d):
            module.p = 0.0
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    objective = build_loss("dice_ce")
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = objective(net(x), truth[:, None])
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return dice(net.eval()(x).argmax(1), truth)
