"""Help texts: plain text in 80 columns, basic options before advanced ones, every example on a line of its own.

Typer's tables cut off long options in a terminal of 80 columns and show the names of Python types.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

__all__ = ["ADVANCED", "Command", "Group", "described"]

ADVANCED = "Advanced options"
_BASIC = "Options"

# Contexts, formatters and parameters are `Any`: newer versions of typer have their own copy of click's classes.


class Command(TyperCommand):
    """A command whose epilog is a list of examples, one a line."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = [self.options_metavar] if self.options_metavar else []
        return [*pieces, *(_usage(each) for each in self.get_params(ctx) if _is_argument(each))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Examples" if "\n" in self.epilog else "Example"):
                _write_lines(self.epilog, formatter)


class Group(TyperGroup):
    """The program itself: its commands in groups, each with the first paragraph of its help in full."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                about = " ".join((command.help or "").split("\n\n")[0].split())
                panels.setdefault(command.rich_help_panel or "Commands", []).append((name, about))
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        _write_parameters(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            formatter.write_paragraph()
            _write_lines(self.epilog, formatter)


def _write_lines(text: str, formatter: Any) -> None:
    for line in text.splitlines():
        formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def described(parameters: list[Any]) -> dict[str, list[tuple[str, str]]]:
    """Title -> the arguments or options below it, each as it is written and what it means."""
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], _BASIC: [], ADVANCED: []}
    for each in parameters:
        if _is_argument(each):
            panels["Arguments"].append((_argument(each), each.help or ""))
        elif not each.hidden:
            panels[each.rich_help_panel or _BASIC].append((_option(each), _about(each)))
    return panels


def _write_parameters(parameters: list[Any], formatter: Any) -> None:
    for title, rows in described(parameters).items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _argument(parameter: Any) -> str:
    return f"{parameter.metavar}..." if parameter.nargs != 1 else str(parameter.metavar)


def _usage(parameter: Any) -> str:
    name = _argument(parameter)
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    names = ", ".join(sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: name.startswith("--")))
    return names if parameter.is_flag else f"{names} {parameter.metavar or 'VALUE'}"


def _about(parameter: Any) -> str:
    text = parameter.help or ""
    if parameter.required:
        return f"{text} [required]"
    if parameter.default is None or parameter.is_flag:
        return text
    return f"{text} [default: {parameter.default}]"
