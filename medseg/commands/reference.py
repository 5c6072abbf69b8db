"""Reference pages in Markdown, made from the program itself: `python -m medseg.commands.reference commands|config`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import typer

from medseg.commands.config import default_of, introduction_of, meaning_of, taken_by
from medseg.config import Key, all_keys
from medseg.errors import ConfigError

__all__ = ["command_reference", "config_reference"]


def config_reference() -> str:
    """Every key of the configuration with default, type and meaning, a table for each part.

    Example:
        >>> "## training" in config_reference() and "`training.momentum`" in config_reference()
        True
    """
    parts: dict[str, list[Key]] = {}
    for key in all_keys().values():
        parts.setdefault(key.name.rpartition(".")[0], []).append(key)
    lines = ["# Configuration keys", ""]
    for part, keys in parts.items():
        lines += [f"## {part or 'Keys of the run itself'}", "", introduction_of(keys[0]), ""]
        rows = [(f"`{key.name}`", _code(default_of(key)), taken_by(key), meaning_of(key)) for key in keys]
        lines += [*_table(("key", "default", "takes", "meaning"), rows), ""]
    return "\n".join(lines)


def command_reference() -> str:
    """Every command with usage, arguments, options and examples.

    Example:
        >>> "## medseg predict" in command_reference() and "`--save-probabilities`" in command_reference()
        True
    """
    from medseg.cli import app
    from medseg.cli_help import ADVANCED, Command, described

    lines = ["# Commands", ""]
    group = typer.main.get_command(app)
    top = group.make_context("medseg", [], resilient_parsing=True)
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]  # it is a group
        assert isinstance(command, Command)
        context = command.make_context(name, [], parent=top, resilient_parsing=True)
        usage = " ".join(["medseg", name, *command.collect_usage_pieces(context)])
        lines += [f"## medseg {name}", "", *_paragraphs(command.help or ""), "```text", usage, "```", ""]
        for title, rows in described(command.get_params(context)).items():
            if rows:
                heading = "advanced option" if title == ADVANCED else title.lower().rstrip("s")
                lines += [*_table((heading, "meaning"), [(f"`{what}`", about) for what, about in rows]), ""]
        lines += ["```bash", *(command.epilog or "").splitlines(), "```", ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield " ".join(paragraph.split())
        yield ""


def _code(text: str) -> str:
    return f"`{text}`" if text not in ("not set", "none: it must be given") else text


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (headings, ["---"] * len(headings), *rows):
        # A bar ends a cell, even within code; what looks like a tag must not become one.
        cells = (cell if cell.startswith("`") else cell.replace("<", "&lt;") for cell in row)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    _PAGES = {"commands": command_reference, "config": config_reference}
    if len(sys.argv) != 2 or sys.argv[1] not in _PAGES:
        raise ConfigError(f"give one of {', '.join(_PAGES)}")
    sys.stdout.write(_PAGES[sys.argv[1]]())
