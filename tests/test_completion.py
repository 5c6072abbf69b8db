"""Tab in bash, zsh and fish offers commands, options and names, at once and without loading torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medseg.cli import app

CODE = (
    "import sys\nsys.argv = ['medseg']\nfrom medseg.cli import main\n"
    "try:\n    main()\nfinally:\n    print('LOADED', *sys.modules, file=sys.stderr)\n"
)


def offered(shell: str, line: str, folder: Path) -> str:
    """What the shell's completion function gets for a line that is typed so far."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_TYPER_COMPLETE_ARGS": line}
    environment = (
        os.environ | words | {"_MEDSEG_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    )
    done = subprocess.run([sys.executable, "-c", CODE], cwd=folder, env=environment, capture_output=True, text=True)
    assert not {"torch", "monai"} & set(done.stderr.split()), done.stderr
    assert "LOADED" in done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("medseg eval", "evaluate"),
        ("medseg predict --save-p", "--save-probabilities"),
        ("medseg train hippo", "hippocampus"),
    ],
)
def test_every_shell_is_offered_commands_options_and_presets(tmp_path: Path, shell: str, line: str, name: str) -> None:
    assert name in offered(shell, line, tmp_path)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("medseg train my_", "my_data/"),
        ("medseg train my_data training.max_m", "training.max_minutes="),
        ("medseg config training.mom", "training.momentum"),
        ("medseg evaluate a b --task ves", "vessel"),
        ("medseg nets deeplabv3", "deeplabv3plus"),
        ("medseg predict m s --format dicom", "dicom-seg"),
        ("medseg convert a b --format super", "supervisely"),
    ],
)
def test_names_are_offered_where_they_are_expected(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "my_data").mkdir()
    assert name in offered("bash", line, tmp_path).split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_can_be_shown(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the detection of the shell, its name is given.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    result = CliRunner().invoke(app, ["--show-completion", shell], prog_name="medseg")
    assert result.exit_code == 0, result.output
    assert f"_MEDSEG_COMPLETE=complete_{shell}" in result.output
