"""The command, as the tests of this folder call it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from bundle_fixtures import (  # noqa: F401
    as_for_tests,
    empty_image,
    one_thread,
    sides_bundle,
    threshold_bundle,
    unet_bundle,
)

from medseg.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """`run('predict', ...)` -> exit code, standard output and error of `medseg predict ...`."""

    def medseg_(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["medseg", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return medseg_
