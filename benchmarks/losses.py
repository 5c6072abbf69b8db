"""Dice + cross-entropy of 2 x 3 x 128^3 logits, forward and backward, beside nnU-Net's memory-efficient pair.

    python benchmarks/losses.py --nnunet-python VENV/bin/python [--repeats 9]

nnU-Net runs in an environment of its own, as its dependencies differ. Both processes hold the same logits and labels,
use one thread and take turns; the figure is the median CPU time of a step (forward and backward), which does not count
the time that other programs hold the core. The values are compared, too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

SHAPE = (2, 3, 128, 128, 128)
SMOOTH = 1e-5
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def medseg_loss() -> Loss:
    """Dice over the batch without background, and cross-entropy."""
    from medseg.losses import build_loss

    return build_loss("dice_ce", smooth=SMOOTH)


def nnunet_loss() -> Loss:
    """The same of nnU-Net, whose Dice is negative: 1 less."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dice = {"batch_dice": True, "smooth": SMOOTH, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)


def steps(build: Callable[[], Loss], kind: torch.dtype) -> Callable[[], tuple[float, float]]:
    """A function that makes one step and gives its CPU seconds and the loss."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE, generator=generator)
    labels = torch.randint(SHAPE[1], (SHAPE[0], 1, *SHAPE[2:]), generator=generator).to(kind)
    loss = build()

    def step() -> tuple[float, float]:
        leaf = logits.detach().requires_grad_()
        started = time.process_time()
        value = loss(leaf, labels)
        value.backward()
        return time.process_time() - started, value.item()

    return step


def serve() -> None:
    """nnU-Net's side: a step for each line that comes in."""
    step = steps(nnunet_loss, torch.float32)
    for _ in sys.stdin:
        print(*step(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet-python", type=Path, help="python of an environment with nnunetv2")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve()
        return
    ours, theirs = [], []
    step = steps(medseg_loss, torch.int16)
    command = [str(asked.nnunet_python), __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        for repeat in range(asked.repeats + 1):
            seconds, value = step()
            other.stdin.write("\n")
            other.stdin.flush()
            other_seconds, other_value = map(float, other.stdout.readline().split())
            if abs(value - 1 - other_value) > 1e-4:
                raise SystemExit(f"the losses differ: {value} - 1 and {other_value}")
            # The first step of each warms up.
            if repeat:
                ours.append(seconds)
                theirs.append(other_seconds)
        other.stdin.close()
    mine, other_median = statistics.median(ours), statistics.median(theirs)
    print(f"medseg {mine:.3f} s ({min(ours):.3f} to {max(ours):.3f}), ", end="")
    print(
        f"nnU-Net {other_median:.3f} s ({min(theirs):.3f} to {max(theirs):.3f}) of CPU time; {asked.repeats} steps each"
    )
    print(f"medseg takes {mine / other_median:.2f} of nnU-Net's time (target: at most 0.8)")


if __name__ == "__main__":
    main()
