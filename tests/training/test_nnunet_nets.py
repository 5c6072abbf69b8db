"""nnU-Net's networks from a configuration to masks: training, bundle, resume, and a file with nnU-Net's names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import medseg
from medseg.errors import ConfigError
from medseg.nets import build_net
from medseg.preparation import load_plan

WEIGHTS = "weights_fold0.safetensors"
FAST = {"training.max_iterations": 2, "net.channels": None, "net.width": 0.125, "prediction.mirror": False}


def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run.bundle / WEIGHTS)


def test_a_residual_encoder_trains_resumes_to_the_same_bits_and_predicts(tiny_dataset: Path, monkeypatch) -> None:
    config, overrides = tiny_dataset / "config.yaml", FAST | {"plan.size": "resenc_m", "training.save_every": 1}
    whole = medseg.train(config, overrides)
    described = json.loads((whole.bundle / "model.json").read_text())
    assert described["net"]["name"] == "nnunet_resenc"
    assert described["plan"]["size"]["name"] == "resenc_m"
    plan = load_plan(whole.folder / "plan.yaml")
    assert plan.size.name == "resenc_m" and "plan.patch_size is kept" in plan.size.reason
    # Patches of 16 voxels are halved twice.
    assert plan.channels == (32, 64, 128) and len(plan.kernels) == 3

    steps, step = [], torch.optim.AdamW.step

    def second_fails(self, *args, **kwargs):
        steps.append(None)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    overrides |= {"output": str(tiny_dataset / "stopped")}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch.optim.AdamW, "step", second_fails)
        medseg.train(config, overrides)
    assert (tiny_dataset / "stopped" / "last.pt").exists() and not (tiny_dataset / "stopped" / "model").exists()
    resumed = medseg.train(config, overrides, resume=True)
    assert all(torch.equal(value, weights(resumed)[key]) for key, value in weights(whole).items())
    image = medseg.read(tiny_dataset / "data" / "images" / "case2.nii.gz")
    found = medseg.load_model(whole.bundle, device="cpu").predict(image)
    assert found.same_geometry(image)
    assert set(found.array.ravel().tolist()) <= {0, 1}


@pytest.mark.parametrize(("name", "dims"), [("nnunet_plain", 2), ("nnunet_resenc", 3)])
def test_a_bundle_has_nnunets_names_of_parameters(tiny_dataset: Path, name: str, dims: int) -> None:
    patch = [16, 16, 16][:dims]
    overrides = FAST | {"net.name": name, "net.dims": dims, "plan.patch_size": patch}
    run = medseg.train(tiny_dataset / "config.yaml", overrides)
    found = weights(run)
    part = r"(conv|norm)\.(weight|bias)"
    stage = (
        rf"encoder\.stages\.\d\.0\.convs\.\d\.{part}"
        if name == "nnunet_plain"
        else rf"encoder\.(stem\.convs\.0|stages\.\d\.blocks\.\d\.(conv[12]|skip\.[01]))\.{part}"
    )
    decoder = rf"decoder\.((transpconvs|seg_layers)\.\d\.(weight|bias)|stages\.\d\.convs\.\d\.{part})"
    assert all(re.fullmatch(rf"{stage}|{decoder}", key) for key in found)
    assert {f"decoder.seg_layers.{n}.weight" for n in (0, 1)} <= set(found)
    assert found["decoder.seg_layers.0.weight"].dim() == dims + 2


def test_a_training_starts_from_weights_of_nnunets_names_heads_included(tiny_dataset: Path) -> None:
    plan = {"channels": (8, 16, 32), "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)), "width": 0.5}
    torch.manual_seed(1)
    donor = build_net("nnunet_plain", dims=3, in_channels=1, out_channels=2, **plan)
    torch.save(donor.state_dict(), tiny_dataset / "public.pth")
    overrides = FAST | {"net.name": "nnunet_plain", "net.channels": [8, 16, 32], "net.width": 0.5}
    overrides |= {"training.init": str(tiny_dataset / "public.pth"), "training.learning_rate": 1e-9}
    run = medseg.train(tiny_dataset / "config.yaml", overrides)
    for key, value in donor.state_dict().items():
        torch.testing.assert_close(weights(run)[key], value, rtol=1e-4, atol=1e-5)


def test_a_plan_with_kernels_is_refused_by_a_network_that_has_none(tiny_dataset: Path) -> None:
    config = tiny_dataset / "config.yaml"
    medseg.train(config, FAST | {"net.name": "nnunet_plain", "training.max_iterations": 1})
    for name in ("last.pt", "log.jsonl"):
        (tiny_dataset / "run" / name).unlink()
    with pytest.raises(ConfigError, match="unet has no option 'kernels'"):
        medseg.train(config, FAST | {"net.name": "unet"})
