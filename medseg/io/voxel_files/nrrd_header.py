"""The text header of a NRRD file: `field: value` lines, `key:=value` pairs, `#` comments, ended by an empty line.

Format as documented at teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ReadError
from medseg.io.voxel_files.streams import read_start

__all__ = ["NrrdFields", "read_fields"]

_HEADER_LIMIT = 1 << 20
_FIELD = re.compile(r"([^:]+?): ?(.*)")
_ALIASES = {
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "axismins": "axis mins",
    "centerings": "centers",
}


@dataclass(frozen=True, slots=True)
class NrrdFields:
    """The fields of a header by their canonical names, and the byte at which the voxels of an attached file begin.

    `listed` are the file names in the lines after 'data file: LIST'.

    All methods raise a ReadError, with the field and its text, if the field is malformed.
    """

    path: Path
    values: dict[str, str]
    end: int
    listed: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """The field's text in lower case, '' if absent."""
        return self.values.get(name, "").strip().lower()

    def words(self, name: str) -> list[str]:
        """The field's words in lower case, without quotation marks."""
        return [word.strip('"') for word in self.text(name).split()]

    def whole(self, name: str, otherwise: int | None = None) -> int:
        """The field as one integer."""
        text = self.text(name)
        if not text and otherwise is not None:
            return otherwise
        try:
            number = int(text)
        except ValueError:
            raise self._wrong(name, "a whole number") from None
        if abs(number) >= 2**60:
            raise self._wrong(name, "a number of plausible size")
        return number

    def wholes(self, name: str, count: int) -> tuple[int, ...]:
        """The field as `count` integers."""
        try:
            numbers = tuple(int(word) for word in self.words(name))
        except ValueError:
            numbers = ()
        if len(numbers) != count or any(abs(n) >= 2**60 for n in numbers):
            raise self._wrong(name, f"{count} whole numbers")
        return numbers

    def numbers(self, name: str, count: int) -> tuple[float, ...] | None:
        """The field as `count` numbers, NaN where it does not apply to an axis; None if absent."""
        if not self.text(name):
            return None
        try:
            numbers = tuple(float(word) for word in self.words(name))
        except ValueError:
            numbers = ()
        if len(numbers) != count or any(map(math.isinf, numbers)):
            raise self._wrong(name, f"{count} numbers")
        return numbers

    def vectors(self, name: str, count: int, length: int) -> tuple[tuple[float, ...] | None, ...] | None:
        """The field as `count` vectors like `(0.5,0,0)`, None for `none`; None if absent."""
        text = self.text(name)
        if not text:
            return None
        found: list[tuple[float, ...] | None] = []
        for part in re.findall(r"none|\([^()]*\)|[^\s()]+", text):
            if part == "none":
                found.append(None)
                continue
            try:
                vector = tuple(float(number) for number in part.strip("()").split(","))
            except ValueError:
                vector = ()
            if part[0] != "(" or len(vector) != length or not all(map(math.isfinite, vector)):
                raise self._wrong(name, f"vectors of {length} numbers, like (1,0,0)")
            found.append(vector)
        if len(found) != count:
            raise self._wrong(name, f"{count} vectors")
        return tuple(found)

    def _wrong(self, name: str, expected: str) -> ReadError:
        return ReadError(f"{self.path} has '{name}: {self.text(name)[:80]}'; expected {expected}")


def read_fields(path: Path) -> NrrdFields:
    """The header of a NRRD file.

    Raises:
        ReadError: if the file is not NRRD, or its header has no end.
    """
    start = read_start(path, _HEADER_LIMIT, "raw")
    if not re.match(rb"NRRD000\d\r?\n", start):
        raise ReadError(f"{path} is not a NRRD file: it does not begin with NRRD000; check what it is")
    blank = re.search(rb"\r?\n\r?\n", start)
    if blank is None and len(start) == _HEADER_LIMIT:
        raise ReadError(f"{path} has a damaged NRRD header: no empty line ends it; convert or download it again")
    head = start[: blank.start()] if blank else start
    values: dict[str, str] = {}
    lines = head.decode("latin-1").splitlines()[1:]
    listed: tuple[str, ...] = ()
    for n, line in enumerate(lines):
        pair, field = line.find(":="), line.find(": ")
        match = _FIELD.fullmatch(line)
        if line.startswith("#") or match is None or (pair >= 0 and (field < 0 or pair < field)):
            continue
        name = match[1].strip().lower()
        name = _ALIASES.get(name, name)
        values[name] = match[2].strip()
        if name == "data file" and match[2].lower().split()[:1] == ["list"]:
            # The list is the end of the header.
            listed = tuple(each.strip() for each in lines[n + 1 :] if each.strip())
            break
    # Without the empty line no voxels follow; they may be in another file.
    return NrrdFields(path, values, blank.end() if blank else len(start), listed)
