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

    Args:
        several: the process is one of several that must stop after the same step, and gets each signal from the
            terminal and from torchrun. It is then only noted, in `caught`, save within `interruptible`.
    """

    def __init__(self, several: bool = False) -> None:
        self._several = several
        self._held = several
        self._caught: signal.Signals | None = None

    @property
    def caught(self) -> int:
        """The number of a signal that has come and has not been raised yet, 0 for none."""
        return 0 if self._caught is None else int(self._caught)

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
            self._held = self._several
        if not self._several:
            self._raise_caught()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that a signal ends at once, also where there are several processes."""
        self._held = False
        try:
            self._raise_caught()
            yield
        finally:
            self._held = self._several

    def _raise_caught(self) -> None:
        if self._caught is not None:
            caught, self._caught = self._caught, None
            raise KeyboardInterrupt(caught)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._held and (self._several or self._caught is None):
            self._caught = signal.Signals(number)
            return
        raise KeyboardInterrupt(signal.Signals(number))
