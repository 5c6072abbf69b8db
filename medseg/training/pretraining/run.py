"""`medseg pretrain`: from a folder of images to weights that `training.init` takes."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from medseg.config import RunConfig
from medseg.disk.atomic import atomic_path, write_text_atomic
from medseg.errors import ConfigError, MedsegError
from medseg.inference.device import device_memory, resolve_device
from medseg.io.formats import is_there
from medseg.preparation.images_only import IMAGE, PreparedImages, prepare_images
from medseg.preparation.kept_plan import PlannedFor
from medseg.progress import console_progress
from medseg.training.data import BatchSource, prefetched
from medseg.training.ema import WeightAverage
from medseg.training.failures import memory_explained, step_too_large
from medseg.training.init_weights import PRETRAINED
from medseg.training.net import describe_net, net_info_for
from medseg.training.optimizer import build_optimizer, set_rate
from medseg.training.precision import precision_for
from medseg.training.pretraining.masking import draw_mask, masked
from medseg.training.schedule import is_over, learning_rate, progress_of
from medseg.version import __version__

__all__ = ["NETS", "Pretrained", "pretrain"]

_log = logging.getLogger("medseg")
NETS = ("unet", "unet_residual", "nnunet_plain", "nnunet_resenc")
"""Networks whose last layer can give grey levels, and whose other layers then serve a segmentation."""
# Blocks as small as structures are restored from their surroundings, not from shape: about a sixth of a usual patch.
BLOCK, SHARE = 8, 0.6
# Stands in the seed of a step's masks.
MASKS = (1 << 21) + 1
# The last layers of these networks, which depend on the labels.
_HEADS = {"head", "auxiliary", "seg_layers"}
_LOG_EVERY = 20


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A finished pretraining.

    Args:
        folder: for `training.init`.
        iterations: steps done.
        loss: mean squared error of hidden voxels in the last steps, in units of the normalised images' variance.
    """

    folder: Path
    iterations: int
    loss: float


def pretrain(config: RunConfig, folder: Path) -> Pretrained:
    """Train a network to restore hidden blocks of images, and write its weights but the last layer's.

    Args:
        config: `data.root` is the folder of images; `net`, `plan`, `augmentation`, `training` and `seed` count.
        folder: gets `pretrained.safetensors`, `pretrain.json`, `plan.yaml` and the prepared images.

    Raises:
        ConfigError: another network than those of `NETS`, or a folder that holds weights already.
        DatasetError, ReadError: images that cannot be used.
        MachineError: too little memory.
        MedsegError: a loss that is not a number.
        WriteError: disk full or no permission.
    """
    if config.net.name not in NETS:
        raise ConfigError(f"net.name is {config.net.name}, but pretrain takes {', '.join(NETS)}")
    if is_there(folder / PRETRAINED):
        raise ConfigError(f"{folder} already holds pretrained weights; give another folder")
    device = resolve_device(config.device)
    memory = config.plan.memory_gb or device_memory(device) / 1e9
    with console_progress("prepare") as progress:
        images = prepare_images(config, folder, PlannedFor(memory, device.type == "cuda"), progress)
    values = net_info_for(config, images.plan, IMAGE, device.type == "cuda")
    info = values.model_copy(update={"out_channels": images.plan.in_channels})
    _log.info("%s", describe_net(info))
    torch.manual_seed(config.seed)
    net = info.build().to(device)
    with console_progress("pretrain") as progress:
        weights, iterations, loss = _trained(net, images, config, device, progress)
    _write(weights, folder, {"net": info.model_dump(mode="json"), "iterations": iterations, "loss": loss})
    return Pretrained(folder, iterations, loss)


def _trained(
    net: nn.Module,
    images: PreparedImages,
    config: RunConfig,
    device: torch.device,
    progress: Callable[[float, float, str], None],
) -> tuple[dict[str, Tensor], int, float]:
    plan, training = images.plan, config.training
    # What the network sees is hidden, not altered: grey levels stay, positions vary.
    augmentation = {key: 0.0 for key in type(config.augmentation).model_fields if key.endswith("_probability")}
    kept = {"spatial_probability": config.augmentation.spatial_probability, "extra": (), "custom": None}
    plain = config.model_copy(update={"augmentation": config.augmentation.model_copy(update={**augmentation, **kept})})
    source = BatchSource(images.cases, plan, IMAGE, plain, 0)
    optimizer, average = build_optimizer(net, training), WeightAverage(net, training.ema_decay)
    precision = precision_for(net, plan, device) if training.mixed_precision else None
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    batches = prefetched(source, 0, device.type == "cuda")
    started, iteration, elapsed = time.monotonic(), 0, 0.0
    losses: list[float] = []
    try:
        while not is_over(iteration, elapsed, training):
            done = progress_of(iteration, elapsed, training)
            set_rate(optimizer, learning_rate(iteration, done, training))
            with memory_explained(step_too_large(config, plan, plan.batch_size, 1)):
                target = next(batches).images.to(device)
                masks = _masks(config.seed, iteration, target)
                net.train()
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, precision, enabled=precision is not None):
                    found = net(masked(target, masks))
                found = (found[0] if isinstance(found, tuple) else found).float()
                loss = ((found - target).square() * masks).sum() / (masks.sum() * target.shape[1])
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(net.parameters(), training.gradient_clip)
                scaler.step(optimizer)
                scaler.update()
                average.update(net, iteration)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise MedsegError(
                    f"the loss is {losses[-1]} at iteration {iteration + 1} of the pretraining; check the images' "
                    "intensities, or lower training.learning_rate"
                )
            iteration, elapsed = iteration + 1, time.monotonic() - started
            if iteration % _LOG_EVERY == 0:
                shown = f"iteration {iteration}, error of hidden voxels {np.mean(losses[-_LOG_EVERY:]):.3f}"
                progress(progress_of(iteration, elapsed, training), 1.0, shown)
    finally:
        batches.close()  # type: ignore[attr-defined]
    return _without_last_layer(average.net), iteration, round(float(np.mean(losses[-_LOG_EVERY:])), 4)


def _masks(seed: int, iteration: int, images: Tensor) -> Tensor:
    rng = np.random.default_rng([seed, iteration, MASKS])
    return torch.stack([draw_mask(rng, images.shape[2:], BLOCK, SHARE) for _ in images]).to(images.device)


def _without_last_layer(net: nn.Module) -> dict[str, Tensor]:
    """The weights but those of the layers that give grey levels."""
    values = {name: value for name, value in net.state_dict().items() if _HEADS.isdisjoint(name.split("."))}
    return {name: value.cpu().contiguous() for name, value in values.items()}


def _write(weights: dict[str, Tensor], folder: Path, facts: dict[str, object]) -> None:
    with atomic_path(folder / PRETRAINED) as temporary:
        temporary.write_bytes(save(weights))
    content = {"format_version": 1, "medseg": __version__, **facts, "block": BLOCK, "hidden_share": SHARE}
    write_text_atomic(folder / "pretrain.json", json.dumps(content, indent=1) + "\n")
