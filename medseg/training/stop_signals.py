"""Ctrl-C, SIGTERM and SIGHUP end a training between two steps, never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopSignals"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # SIGHUP: the terminal was closed; Windows has none
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class StopSignals:
    """While `listening`, such a signal raises `KeyboardInterrupt(signal)` at once, or at the end of `uninterrupted`.

    Signals that the program handles or ignores itself stay so. Outside of the main thread nothing changes, as Python
    delivers signals there alone.
    """

    def __init__(self) -> None:
        self._held = False
        self._caught: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the signals until the block ends."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            known = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
            before = {each: signal.getsignal(each) for each in known if signal.getsignal(each) in _DEFAULTS}
        for each in before:
            signal.signal(each, self._take)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """A block that is finished first; a second signal ends it at once all the same."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._caught is not None:
            caught, self._caught = self._caught, None
            raise KeyboardInterrupt(caught)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._held and self._caught is None:
            self._caught = signal.Signals(number)
            return
        raise KeyboardInterrupt(signal.Signals(number))
