"""Starting costs little: the heavy libraries are loaded only by what needs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from medseg.cli import app
from medseg.phantoms import samples_folder

COMMANDS = sorted(typer.main.get_command(app).commands)

LOADED = "\nimport sys; print('LOADED', *sorted({m.partition('.')[0] for m in sys.modules}))"


def modules_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running `code`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code + LOADED], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    return set(line.split()[1:])


def command(*arguments: str) -> str:
    """Code that runs a command line in this interpreter and swallows its exit."""
    return (
        f"import sys; sys.argv = {['medseg', *arguments]!r}\n"
        "from medseg.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
    )


def test_import_medseg_loads_next_to_nothing() -> None:
    assert not modules_after("import medseg") & {"torch", "monai", "numpy", "pydantic", "scipy", "nibabel"}


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_loads_neither_torch_nor_monai(name: str) -> None:
    loaded = modules_after(command(*([name] if name else []), "--help"))
    assert not loaded & {"torch", "monai", "scipy", "matplotlib"}


def test_the_version_is_told_without_loading_anything_heavy() -> None:
    loaded = modules_after(command("--version"))
    assert not loaded & {"torch", "monai", "numpy", "scipy", "nibabel", "pydicom", "matplotlib", "yaml"}


def test_reading_and_windowing_load_neither_torch_nor_monai() -> None:
    study = str(samples_folder() / "study")
    loaded = modules_after(f"import medseg; medseg.window(medseg.read({study!r}), 'lung')")
    assert not loaded & {"torch", "monai", "matplotlib"}


def test_evaluate_loads_no_torch(tmp_path: Path) -> None:
    reference = str(samples_folder() / "study_reference")
    loaded = modules_after(f"import medseg; medseg.evaluate({reference!r}, {reference!r}, out={str(tmp_path)!r})")
    assert not loaded & {"torch", "monai"}
    assert (tmp_path / "cases.csv").is_file()


def test_prediction_loads_no_torch_before_a_network_does() -> None:
    code = "import medseg.cli_predict, medseg.inference.predictor, medseg.studies.run; medseg.inference.sliding_window"
    assert not modules_after(code) & {"torch", "monai", "safetensors", "SimpleITK", "skimage", "matplotlib"}


def test_a_net_of_our_own_predicts_without_monai() -> None:
    code = (
        "import torch\nfrom medseg.nets import build_net\n"
        "net = build_net('unet', dims=2, in_channels=1, out_channels=2, channels=(4, 8)).eval()\n"
        "import medseg.inference\n"
        "net(torch.zeros(1, 1, 16, 16))"
    )
    assert "monai" not in modules_after(code)


def test_a_net_of_our_own_is_compared_with_its_weights_without_torchs_compiler() -> None:
    code = (
        "from medseg.nets import NETS\nfrom medseg.nets.profile import build_on_meta\n"
        "for name in NETS:\n    if not name.startswith('monai'):\n"
        "        for dims in (2, 3):\n            build_on_meta(name, dims=dims)"
    )
    assert not modules_after(code) & {"sympy", "monai"}
