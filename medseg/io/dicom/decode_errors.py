"""What damaged DICOM raises in pydicom and its decoders, and how it is told."""

from __future__ import annotations

import struct
import zlib

__all__ = ["damage", "reason_of"]


def damage() -> tuple[type[Exception], ...]:
    """The errors that a damaged file can raise anywhere in pydicom and its decoders, besides OSError."""
    from pydicom.errors import BytesLengthException

    return (
        ArithmeticError,
        AttributeError,
        BytesLengthException,
        EOFError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    )


def reason_of(error: Exception) -> str:
    """The error in one short line: pydicom puts whole tracebacks into its messages."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return line[:200]
