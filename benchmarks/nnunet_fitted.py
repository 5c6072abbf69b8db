"""nnU-Net with its schedule fitted to a budget of CPU seconds. Runs in nnU-Net's Python; against_nnunet.py starts it.

    python nnunet_fitted.py prepare CONFIGURATION
    python nnunet_fitted.py train CONFIGURATION '{"minutes": 10, "seed": 0, "mirror": "x", "result": FILE}'
    python nnunet_fitted.py predict CONFIGURATION IMAGES OUT

Of the variants that were tried at equal CPU time this was the best: half the features, AdamW at 2e-3 with 20 warm-up
steps and polynomial decay (power 0.9) to the end of the budget, mirroring along x only. Patch and batch are those that
nnU-Net plans. The budget begins with the first step; nothing is validated within it, and all cases train.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

DATASET, PLANS = "Dataset001_Benchmark", "nnUNetPlans"
RATE, WARM_UP, POWER = 2e-3, 20, 0.9


class FittedTrainer(nnUNetTrainer):
    """Stock trainer but for optimizer, rate, mirroring and the end of the training."""

    minutes, mirror = 1.0, "x"

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        rotation, flat, patch, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.mirror == "x":
            # Arrays are z, y, x, or in pictures y, x; planning may have changed the order of three axes.
            order = list(self.plans_manager.transpose_forward)
            axes = (order.index(2),) if len(axes) == 3 else (1,)
        elif self.mirror == "none":
            axes = None
        self.inference_allowed_mirroring_axes = axes
        return rotation, flat, patch, axes

    def configure_optimizers(self):
        return torch.optim.AdamW(self.network.parameters(), lr=RATE, weight_decay=self.weight_decay), None

    def plot_network_architecture(self):
        """Draws nothing."""

    def run_training(self):
        self.on_train_start()
        self.network.train()
        self.iterations, started, done = 0, sum(os.times()[:4]), 0.0
        while done < 1:
            rate = RATE * min(1.0, (self.iterations + 1) / WARM_UP) * (1 - done) ** POWER
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self.train_step(next(self.dataloader_train))["loss"]
            self.iterations += 1
            if self.iterations % 20 == 0:
                print(f"iteration {self.iterations}, {done:.0%}, loss {float(loss):.4f}", flush=True)
            done = (sum(os.times()[:4]) - started) / (60 * self.minutes)
        self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_final.pth"))


# Under this name nnU-Net's prediction finds the class that builds the network.
FittedTrainer.__name__ = nnUNetTrainer.__name__


def prepare(configuration: str) -> None:
    """Plan with half the features, and preprocess."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess_dataset,
    )

    extract_fingerprints([1], num_processes=1, verbose=False)
    # Planning takes it for a number of threads, so 0, which training wants, will not do here.
    os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112
    plan_experiments([1])
    path = Path(os.environ["nnUNet_preprocessed"]) / DATASET / f"{PLANS}.json"  # noqa: SIM112
    plans = json.loads(path.read_text())
    options = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
    options["features_per_stage"] = [max(1, n // 2) for n in options["features_per_stage"]]
    path.write_text(json.dumps(plans, indent=4))
    preprocess_dataset(1, PLANS, (configuration,), [1])


def train(configuration: str, settings: dict) -> None:
    """Train on all cases; `result` gets iterations, seconds and peak memory."""
    random.seed(settings["seed"])
    np.random.seed(settings["seed"])  # noqa: NPY002 (what nnU-Net draws from)
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(1)
    folder = Path(os.environ["nnUNet_preprocessed"]) / DATASET  # noqa: SIM112
    plans = json.loads((folder / f"{PLANS}.json").read_text()) | {"continue_training": False}
    dataset = json.loads((folder / "dataset.json").read_text())
    trainer = FittedTrainer(plans, configuration, "all", dataset, torch.device("cpu"))
    trainer.minutes, trainer.mirror = settings["minutes"], settings["mirror"]
    trainer.run_training()
    result = {
        "iterations": trainer.iterations,
        "seconds": sum(os.times()[:4]),
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "patch": list(trainer.configuration_manager.patch_size),
        "batch": trainer.batch_size,
    }
    Path(settings["result"]).write_text(json.dumps(result))


def predict(configuration: str, images: Path, out: Path) -> None:
    """Masks of all images of a folder, with nnU-Net's defaults."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(1)
    predictor = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
    results = Path(os.environ["nnUNet_results"]) / DATASET  # noqa: SIM112
    folder = results / f"{nnUNetTrainer.__name__}__{PLANS}__{configuration}"
    predictor.initialize_from_trained_model_folder(str(folder), ("all",), "checkpoint_final.pth")
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(images.iterdir())
    names = [str(out / path.name.split("_0000.")[0]) for path in files]
    predictor.predict_from_files_sequential([[str(path)] for path in files], names)


if __name__ == "__main__":
    what, configuration, *rest = sys.argv[1:]
    if what == "prepare":
        prepare(configuration)
    elif what == "train":
        train(configuration, json.loads(rest[0]))
    else:
        predict(configuration, *map(Path, rest))
