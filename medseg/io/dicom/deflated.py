"""Deflated DICOM files (PS3.5 section A.5) as the plain ones that they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.errors import ReadError
from medseg.io.dicom.decode_errors import reason_of

__all__ = ["DEFLATED", "inflated"]

DEFLATED = "1.2.840.10008.1.2.1.99"
_PLAIN = "1.2.840.10008.1.2.1"
# No real image compresses this well: beyond it a deflated file was made to fill the memory.
_LARGE, _RATIO = 2**28, 200
_PIECE = 1 << 20


def inflated(path: Path) -> bytes | None:
    """The content of a deflated file in Explicit VR Little Endian; None for a file that is not deflated.

    Raises:
        ReadError: for a file that inflates far more than any image, is cut short or damaged, or cannot be read.
    """
    from isal import isal_zlib

    damaged: Any = isal_zlib.error
    try:
        with path.open("rb") as file:
            start = file.read(1024)
            if DEFLATED.encode() not in start:
                return None
            # The data set follows the file meta information, whose length is its first element (PS3.10 section 7.1).
            meta = 144 + int.from_bytes(start[140:144], "little")
            file.seek(0)
            # A UID may end in zeros, so nothing moves.
            pieces = [file.read(meta).replace(DEFLATED.encode(), _PLAIN.encode().ljust(len(DEFLATED), b"\0"))]
            size, most = 0, max(_LARGE, _RATIO * path.stat().st_size)
            inflate = isal_zlib.decompressobj(wbits=-15)
            while not inflate.eof:
                data = inflate.unconsumed_tail or file.read(_PIECE)
                if not data:
                    raise ReadError(
                        f"{path} is cut short: its deflated data end too early; export or copy it again",
                        kind="cut_short",
                        files=(path.name,),
                    )
                pieces.append(inflate.decompress(data, _PIECE))
                size += len(pieces[-1])
                if size > most:
                    raise ReadError(f"{path} inflates to more than {size >> 20} MB, more than any image; refused")
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {reason_of(error)}") from None
    except damaged as error:
        raise ReadError(f"{path} is damaged ({error}); export it again") from None
    return b"".join(pieces)
