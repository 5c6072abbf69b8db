"""The exceptions that damaged DICOM files raise in pydicom and its decoders, and how they are reported."""

from __future__ import annotations

import struct
import zlib

__all__ = ["damage", "reason_of"]


def damage() -> tuple[type[Exception], ...]:
    """The exception classes, besides OSError, that a damaged file can raise in pydicom and its decoders."""
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
    """The error in one short line, because pydicom puts whole tracebacks into its messages."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return line[:200]
