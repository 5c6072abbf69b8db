"""The reference pages name every command, option and key, in tables that Markdown can read."""

from __future__ import annotations

import re
import subprocess
import sys

import typer

from medseg.cli import app
from medseg.commands.reference import command_reference, config_reference
from medseg.config import all_keys


def rows_of(page: str) -> list[list[str]]:
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("|")]


def test_the_page_of_commands_has_every_command_with_each_of_its_options() -> None:
    page = command_reference()
    sections = dict(re.findall(r"^## medseg ([\w-]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    commands = typer.main.get_command(app).commands
    assert sections.keys() == commands.keys()
    for name, command in commands.items():
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
                assert option in sections[name]
        assert f"```bash\nmedseg {name}" in sections[name]
    assert {len(row) for row in rows_of(page)} == {2}


def test_the_page_of_keys_has_each_key_once_with_default_and_type() -> None:
    rows = rows_of(config_reference())
    assert {len(row) for row in rows} == {4}
    named = [row[0].strip(" `") for row in rows if row[0].strip().startswith("`")]
    assert sorted(named) == sorted(all_keys())
    assert all(row[2].strip() for row in rows)


def test_a_page_is_printed_by_name() -> None:
    command = [sys.executable, "-m", "medseg.commands.reference", "config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == config_reference()
