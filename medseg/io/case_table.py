"""Tables of cases (CSV) as people and spreadsheets write them: any delimiter, any encoding, any case of the columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.config import MOST_LIST_BYTES, read_text
from medseg.errors import DatasetError
from medseg.lookup import nearest

__all__ = ["CaseTable", "annotated_names", "is_case_table", "read_case_table"]

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_OURS = ("case", "image", "label", "group", "split", "annotated")
_PEOPLE = ("patient", "subject", "participant", "pid")
_GROUP = frozenset(("group", *_PEOPLE, *(f"{each}{end}" for each in _PEOPLE for end in ("_id", "id", "_number"))))
# What other programs call these columns; too uncertain to be taken, certain enough to be named.
_MEANT = {
    **dict.fromkeys(
        ("case_id", "caseid", "case_name", "id", "name", "scan", "scan_id", "study", "file", "filename"), "case"
    ),
    **dict.fromkeys(("img", "images", "image_path", "path", "img_path", "volume", "ct", "mri"), "image"),
    **dict.fromkeys(
        ("mask", "masks", "labels", "seg", "segmentation", "label_path", "mask_path", "annotation"), "label"
    ),
    **dict.fromkeys(("fold", "set", "subset", "partition", "phase", "usage"), "split"),
    **dict.fromkeys(("annotated_labels", "labels_annotated", "labelled"), "annotated"),
    **dict.fromkeys(("groups", "patient_name", "patientname", "person", "mrn", "patients", "subjects"), "group"),
}
_ALIKE = 0.76


@dataclass(frozen=True, slots=True)
class CaseTable:
    """A table of cases.

    Args:
        path: the file.
        columns: `case`, `image`, `image_<channel>`, `label`, `group`, `split` and `annotated`, as far as there are, in
            their order; `group` also where the file says patient, subject or PatientID.
        others: all other columns, as they are written in the file.
        rows: line of the file, and column -> text without surrounding blanks; '' for a cell that is missing.
        delimiter: between the cells.
    """

    path: Path
    columns: tuple[str, ...]
    others: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]
    delimiter: str

    def meant(self, missing: str) -> str:
        """The end of a message about a missing column: which other may be meant, or which delimiter was taken."""
        near = next((name for name in self.others if _nearest_of_ours(name) == missing), None)
        if near is not None:
            return f"; if {near!r} is meant, call it {missing}"
        return "" if self.delimiter == "," else f" (read with {_DELIMITERS[self.delimiter]} between the cells)"

    def unused(self) -> str:
        """Which columns mean nothing to medseg, with the one of ours that each resembles; '' if there are none."""
        parts = []
        for name in self.others:
            near = _nearest_of_ours(name)
            parts.append(f"{name!r} (did you mean {near!r}?)" if near else repr(name))
        return ", ".join(parts)


def read_case_table(path: Path) -> CaseTable:
    """Read a table of cases; the delimiter is the one of comma, semicolon, tab and vertical bar that gives our columns.

    The text is UTF-8, UTF-16 with a byte order mark, or else Windows-1252. A first line `sep=;` is followed.

    Raises:
        DatasetError: if the file is not such a table, a quote is not closed, or two columns mean the same.
    """
    text = _text(path)
    delimiter, text, first = _delimiter(text)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
        header = [cell.strip() for cell in next(lines, [])]
        cells = [
            (lines.line_num + first, [cell.strip() for cell in line]) for line in lines if any(map(str.strip, line))
        ]
    except csv.Error as error:
        raise DatasetError(
            f"{path} cannot be read as a table with {_DELIMITERS[delimiter]} between the cells ({error}); put cells "
            'that hold a delimiter or a line break into double quotes, and write a quote in them as ""'
        ) from None
    keys, others = _keys(header, path)
    rows = []
    for line, row in cells:
        if len(row) > len(header) and any(row[len(header) :]):
            raise DatasetError(
                f"{path} line {line} has {len(row)} cells, the first line names {len(header)} columns; put cells that "
                f"hold {_DELIMITERS[delimiter]} into double quotes"
            )
        padded = [*row, *[""] * (len(header) - len(row))]
        rows.append((line, {key: cell for key, cell in zip(keys, padded, strict=False) if key}))
    return CaseTable(path, tuple(k for k in keys if _is_ours(k)), others, tuple(rows), delimiter)


def is_case_table(path: Path) -> bool:
    """Whether a file is a table with the columns case, label and image (or image_<channel>)."""
    try:
        columns = read_case_table(path).columns
    except DatasetError:
        return False
    return {"case", "label"} <= {*columns} and any(name.startswith("image") for name in columns)


def annotated_names(cell: str, where: str) -> tuple[str, ...] | None:
    """The names in a cell of the column `annotated`: joined by semicolons; None for an empty cell: all labels.

    Raises:
        DatasetError: for a cell of nothing but separators.

    Example:
        >>> annotated_names("liver; spleen", "cases.csv line 2")
        ('liver', 'spleen')
    """
    if not cell:
        return None
    names = tuple(name.strip() for name in cell.split(";") if name.strip())
    if not names:
        raise DatasetError(
            f"{where}: {cell[:120]!r} names no label; expected names joined by ';', or nothing where all are annotated"
        )
    return names


def _text(path: Path) -> str:
    try:
        return read_text(path, MOST_LIST_BYTES)
    except UnicodeDecodeError:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read as CSV ({error})") from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DatasetError(f"{path} is not a text in UTF-8, UTF-16 or Windows-1252; save it as CSV in UTF-8")
    return text


def _delimiter(text: str) -> tuple[str, str, int]:
    """The delimiter, the text from its header on, and the number of lines before it."""
    start, _, rest = text.partition("\n")
    said = re.fullmatch(r'"?sep=(.)"?', start.strip("\r"), re.IGNORECASE)
    if said and said[1] in _DELIMITERS:
        return said[1], rest, 1
    stripped = text.lstrip("\r\n")
    skipped = text[: len(text) - len(stripped)].count("\n")
    header = stripped.partition("\n")[0]
    columns = {each: next(csv.reader([header], delimiter=each, skipinitialspace=True), []) for each in _DELIMITERS}
    known = {each: sum(_is_ours(_key(name)) for name in names) for each, names in columns.items()}
    return max(_DELIMITERS, key=lambda each: (known[each], len(columns[each]))), stripped, skipped


def _key(name: str) -> str:
    """Our name of a column, or the name as it stands."""
    plain = re.sub(r"[\s\-.]+", "_", name.strip()).casefold()
    if plain in _GROUP:
        return "group"
    if plain in _OURS:
        return plain
    return f"image_{name.strip()[6:]}" if plain.startswith("image_") and len(plain) > 6 else name.strip()


def _is_ours(key: str) -> bool:
    return key in _OURS or key.startswith("image_")


def _keys(header: Sequence[str], path: Path) -> tuple[list[str], tuple[str, ...]]:
    """The key of each column, '' for a column that is left out, and the names of all that are not ours."""
    keys = [_key(name) for name in header]
    # A column called group goes before one called patient.
    named = next((n for n, name in enumerate(header) if name.casefold() == "group"), None)
    if named is not None:
        keys = [
            name if key == "group" and n != named else key
            for n, (key, name) in enumerate(zip(keys, header, strict=True))
        ]
    for key in keys:
        if _is_ours(key) and keys.count(key) > 1:
            twice = [name for name, each in zip(header, keys, strict=True) if each == key]
            raise DatasetError(f"{path} has two columns for {key}: {', '.join(twice)}; keep one of them")
    return keys, tuple(name for name, key in zip(header, keys, strict=True) if key and not _is_ours(key))


def _nearest_of_ours(name: str) -> str:
    plain = re.sub(r"[\s\-.]+", "_", name).casefold()
    if plain in _MEANT:
        return _MEANT[plain]
    known = {**{each: each for each in _OURS}, **dict.fromkeys(_PEOPLE, "group")}
    return next((known[near] for near in nearest(plain, known, alike=_ALIKE)), "")
