"""A training, as `medseg train` runs it under torchrun, that writes down the loss of every step.

Called with a configuration, the file for the losses, and settings; `--resume` may be the last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import medseg
from medseg.config import parse_overrides
from medseg.training import loop


def main(config: str, losses: str, *settings: str) -> None:
    recorded: list[float] = []
    step = loop._Trainer._step

    def recording(self: loop._Trainer, batch: loop.Batch, rate: float) -> torch.Tensor:
        value = step(self, batch, rate)
        recorded.append(value.item())
        return value

    loop._Trainer._step = recording  # type: ignore[method-assign]
    overrides = parse_overrides([each for each in settings if each != "--resume"])
    run = medseg.train(config, overrides, resume="--resume" in settings)
    Path(losses).with_suffix(f".{run.rank}").write_text(json.dumps(recorded))


if __name__ == "__main__":
    main(*sys.argv[1:])
