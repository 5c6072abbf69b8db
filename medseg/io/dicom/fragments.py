"""Whether the fragments of compressed pixels are whole (DICOM PS3.5 section A.4), without decoding them."""

from __future__ import annotations

import os
import struct

from medseg.errors import ReadError
from medseg.io.dicom.decode_errors import reason_of
from medseg.io.dicom.slice import SliceHeader

__all__ = ["check_fragments"]

_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD


def check_fragments(header: SliceHeader) -> None:
    """Refuse a file whose compressed pixels are cut short.

    Args:
        header: of a file in which `pixel_offset` is the first item of encapsulated pixels.

    Raises:
        ReadError: if a fragment reaches beyond the end of the file, or there is none.
    """
    try:
        with header.path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            position, fragments = header.pixel_offset, -1  # the first item is the Basic Offset Table
            while position + 8 <= size:
                file.seek(position)
                group, element, length = struct.unpack("<HHI", file.read(8))
                tag = group << 16 | element
                if tag == _SEQUENCE_END:
                    break
                if tag != _ITEM:
                    return  # damage of another kind, which the decoders report
                position += 8 + length
                fragments += 1
    except (OSError, struct.error) as error:
        raise ReadError(f"{header.path} cannot be read: {reason_of(error)}") from None
    if position > size or fragments < 1:
        raise ReadError(
            f"{header.path} is cut short: its compressed pixels end after {size - header.pixel_offset} bytes; export "
            "or copy it again",
            kind="cut_short",
            files=(header.name,),
        )
