"""Help texts are whole in a terminal of 80 columns and speak the language of the command line, not of Python."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from medseg.cli import app

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def help_of(*command: str) -> str:
    result = CliRunner().invoke(app, [*command, "--help"], prog_name="medseg", env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda c: " ".join(c) or "medseg")
def test_help_fits_80_columns_with_nothing_cut_off_and_no_python_types(command: tuple[str, ...]) -> None:
    text = help_of(*command)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert not re.search(r"\b(Path|str|int|float|bool|None|True|False)\b|list\[|\[\[|<.*>", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_and_argument_in_full_and_what_it_takes(command: str) -> None:
    text = help_of(command)
    for parameter in GROUP.commands[command].params:
        for name in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
            assert re.search(rf"(^|[ ,]){re.escape(name)}($|[ ,.])", text, re.MULTILINE), name
        assert parameter.help, f"{parameter.name} has no help"
        if parameter.param_type_name == "argument" or not parameter.is_flag:
            assert parameter.metavar, f"{parameter.name} does not say what it takes"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_stands_on_a_line_of_its_own(command: str) -> None:
    lines = help_of(command).splitlines()
    start = next(n for n, line in enumerate(lines) if line in ("Example:", "Examples:"))
    examples = lines[start + 1 :]
    assert examples and all(line.startswith(f"  medseg {command}") for line in examples)


@pytest.mark.parametrize("command", ["predict", "evaluate", "train", "convert"])
def test_basic_options_come_before_the_advanced(command: str) -> None:
    lines = help_of(command).splitlines()
    assert lines.index("Options:") < lines.index("Advanced options:")


def test_the_list_of_commands_shows_each_with_its_whole_first_paragraph() -> None:
    text = " ".join(help_of().split())
    for name in COMMANDS:
        about = " ".join((GROUP.commands[name].help or "").split("\n\n")[0].split())
        assert f"{name} {about}" in text
