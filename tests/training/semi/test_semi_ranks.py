"""Semi-supervised training in several processes: all have the same loss and the same weights."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

HELPER = Path(__file__).parents[2] / "helpers" / "train_recording.py"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mean_teacher", "cross_pseudo"])
def test_two_processes_see_one_loss(tiny_dataset: Path, method: str) -> None:
    (tiny_dataset / "more").mkdir()
    for n in range(4):
        image = nib.load(tiny_dataset / "data" / "images" / f"case{n}.nii.gz").get_fdata(dtype=np.float32)
        nib.save(nib.Nifti1Image(image + 1, np.eye(4)), tiny_dataset / "more" / f"more{n}.nii.gz")
    settings = [f"semi.unlabelled={tiny_dataset / 'more'}", f"semi.method={method}", "semi.start=0", "semi.ramp=0"]
    settings += ["training.max_iterations=3", "training.mixed_precision=false", "device=cpu", "semi.confidence=0"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(HELPER)]
    command += [str(tiny_dataset / "config.yaml"), str(tiny_dataset / "losses.0"), *settings]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tiny_dataset / f"losses.{rank}").read_text()) for rank in (0, 1))
    assert first == second and len(first) == 3 and all(map(math.isfinite, first))
