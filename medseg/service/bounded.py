"""Bounds around pynetdicom, so that no peer takes up memory or disk; they rely on names of its version 3.

`tests/service/test_library.py` says which, and fails where a newer version has others.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from medseg.service.spool import Spool

__all__ = ["bound", "clear_unfinished", "receive_into_files"]

log = logging.getLogger(__name__)
# A peer learns our maximum of 16 KB; a request for an association with 128 contexts and all syntaxes has 300 KB.
_LARGEST_PDU = 1 << 20
# Of the commands, and of data sets of services that are not offered: these are kept in memory.
_LARGEST_MESSAGE = 4 << 20
_CHECK_DISK_BYTES = 64 << 20


def receive_into_files() -> None:
    """Objects that arrive in this process go to a file fragment by fragment, and never as a whole into memory."""
    from pynetdicom import _config

    _config.STORE_RECV_CHUNKED_DATASET = True


def bound(assoc: Any, largest: int, spool: Spool) -> None:
    """Close a connection where a message grows too large; the library reads whatever length a peer states.

    Args:
        assoc: of pynetdicom, as its connection opens.
        largest: bytes of an object.
        spool: says whether the disk has space for more.
    """
    link = assoc.dul.socket
    recv = link.recv
    message: object = None
    received = checked = 0

    def end_early() -> None:
        # The library would go on waiting for the request of a connection that is gone.
        if not assoc.is_established:
            assoc.dul.to_user_queue.put(None)

    def limited(count: int) -> bytearray:
        nonlocal message, received, checked
        current = assoc.dimse.message
        if current is not message:
            message, received, checked = current, 0, 0
        received += count
        in_file = getattr(current, "_data_set_file", None) is not None
        if count > _LARGEST_PDU or received > (largest if in_file else _LARGEST_MESSAGE):
            log.warning("a connection was closed: an object or message is larger than the site file allows")
            end_early()
            raise OSError("too large")
        if received - checked > _CHECK_DISK_BYTES:
            checked = received
            spool.check_reserve()  # an OSError too
        data: bytearray = recv(count)
        if len(data) < count:
            end_early()
        return data

    link.recv = limited


def clear_unfinished(assoc: Any) -> None:
    """Remove the file of an object whose connection ended before it was whole."""
    file = getattr(assoc.dimse.message, "_data_set_file", None)
    if file is not None:
        file.close()
        Path(file.name).unlink(missing_ok=True)
