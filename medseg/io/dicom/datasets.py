"""The pydicom data sets of files with many frames, each parsed once while a volume is read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

from medseg.io.dicom.deflated import inflated

__all__ = ["DatasetCache", "parse_file"]

# Files of one volume that are read in turn; each may be as large as the volume.
_MOST = 4


def parse_file(path: Path) -> Any:
    """A file with its pixels as pydicom parses it, which inflates a deflated one."""
    import pydicom

    plain = inflated(path)
    return pydicom.dcmread(path if plain is None else BytesIO(plain), force=True)


class DatasetCache:
    """The parsed data sets of the latest few files, for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parsed: OrderedDict[Path, Any] = OrderedDict()

    def get(self, path: Path) -> Any:
        """The data set of a file, parsed by the first thread that asks for it; raises what pydicom raises."""
        with self._lock:
            if path not in self._parsed:
                self._parsed[path] = parse_file(path)
                if len(self._parsed) > _MOST:
                    self._parsed.popitem(last=False)
            self._parsed.move_to_end(path)
            return self._parsed[path]
