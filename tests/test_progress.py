"""Progress on a terminal: a panel for long work with many figures, which a log gets in one line."""

from __future__ import annotations

import io
import sys

import pytest

from medseg.progress import console_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


TEXT = "iteration 20, loss 0.5; learning rate 0.001, [bold]1.0 s/step; a\nb 0.300"


def test_a_panel_shows_each_part_of_the_text_in_a_row_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with console_progress("train [fold] 0", panel=True) as progress:
        progress(0.25, 1.0, TEXT)
    rows = screen.getvalue().splitlines()
    shown = [
        next(n for n, row in enumerate(rows) if text in row) for text in ("iteration 20", "[bold]1.0", "a b 0.300")
    ]
    assert shown == [shown[0], shown[0] + 1, shown[0] + 2]
    assert "train [fold] 0" in screen.getvalue() and "25%" in rows[shown[0] - 1] and "ETA" in rows[shown[0] - 1]


def test_a_log_gets_the_same_text_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with console_progress("train", panel=True) as progress:
        progress(0.25, 1.0, TEXT)
    (line,) = log.getvalue().splitlines()
    assert line.startswith("train: 25% in 0 s") and line.endswith(" ".join(TEXT.split()))
