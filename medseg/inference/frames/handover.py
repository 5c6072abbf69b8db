"""Items from one thread to another: only the latest one, or each in turn."""

from __future__ import annotations

from threading import Condition
from typing import Generic, TypeVar

__all__ = ["Handover"]

Item = TypeVar("Item")


class Handover(Generic[Item]):
    """A place for a single item between two threads.

    Args:
        drop: an item that was not taken gives way to the next one and is counted; else the giver waits.

    Example:
        >>> place = Handover[str](drop=True)
        >>> place.put("first"), place.put("second"), place.take(), place.dropped
        (True, True, 'second', 1)
    """

    def __init__(self, drop: bool) -> None:
        self.dropped = 0
        self._drop = drop
        self._items: list[Item] = []
        self._closed = self._left = False
        self._error: BaseException | None = None
        self._changed = Condition()

    def put(self, item: Item) -> bool:
        """Hand an item over; False where nobody will take it, because either side has ended."""
        with self._changed:
            if not self._drop:
                self._changed.wait_for(lambda: not self._items or self._closed or self._left)
            if self._closed or self._left:
                return False
            self.dropped += len(self._items)
            self._items[:] = [item]
            self._changed.notify_all()
            return True

    def take(self) -> Item | None:
        """Wait for an item; None where no more will come.

        Raises:
            BaseException: the error that ended the giver, once what it gave before has been taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed or self._left)
            if self._left:
                return None
            if self._items:
                item = self._items.pop()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def close(self, error: BaseException | None = None) -> None:
        """No more items come, because of an error or because all have been given."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
            self._changed.notify_all()

    def leave(self) -> None:
        """No more items are wanted; what lies here is let go."""
        with self._changed:
            self._left = True
            self._items.clear()
            self._changed.notify_all()
