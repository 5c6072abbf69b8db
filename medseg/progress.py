"""Progress of long work: a bar with ETA on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ProgressCallback", "console_progress"]

ProgressCallback = Callable[[float, float, str], None]
"""Called as `progress(done, total, text)`; both numbers in the same unit."""

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def console_progress(title: str, enabled: bool = True, panel: bool = False) -> Iterator[ProgressCallback]:
    """A callback that shows progress on standard error for as long as the block runs.

    Args:
        title: what is being done, one or two words.
        enabled: False gives a callback that does nothing (for `--json`).
        panel: on a terminal a frame with the bar and, below it, a row for each part of the text between semicolons.
    """
    if not enabled:
        yield lambda done, total, text: None
    elif sys.stderr.isatty():
        with _panel(title) if panel else _bar(title) as callback:
            yield callback
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        # File names may contain what looks like markup.
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, text="")

        def show(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total, text=" ".join(text.split()))

        yield show


@contextmanager
def _panel(title: str) -> Iterator[ProgressCallback]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.panel import Panel
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    console = Console(stderr=True)
    percentage, eta = TextColumn("{task.percentage:>3.0f}%"), TextColumn("ETA")
    # Half a minute, the default, may pass between two updates; the remaining time would then never be known.
    columns = (BarColumn(), percentage, TimeElapsedColumn(), eta, TimeRemainingColumn())
    bar = Progress(*columns, console=console, speed_estimate_period=600.0)
    task = bar.add_task(title, total=None)
    rows = Text()

    def show(done: float, total: float, text: str) -> None:
        bar.update(task, completed=done, total=total)
        rows.plain = "\n".join(" ".join(row.split()) for row in text.split(";"))

    with Live(Panel(Group(bar, rows), title=Text(title), title_align="left"), console=console):
        yield show


def _lines(title: str) -> ProgressCallback:
    started = time.monotonic()
    last = -_SECONDS_BETWEEN_LINES

    def show(done: float, total: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES and done < total:
            return
        last = now
        spent = now - started
        left = f", about {spent * (total - done) / done:.0f} s left" if 0 < done < total else ""
        percent = 100 * done / total if total else 100.0
        # File names may contain line breaks.
        name = " ".join(text.split())
        sys.stderr.write(f"{title}: {percent:.0f}% in {spent:.0f} s{left}{'  ' + name if name else ''}\n")

    return show
