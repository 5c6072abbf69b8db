"""Untrusted JSON and XML: loaded within size limits, and read field by field with type checks."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from medseg.errors import AnnotationError, ReadError
from medseg.io.formats import check_source

__all__ = ["Json", "Xml", "load_document"]

Points = NDArray[np.float64]

# COCO's own training set is a JSON file of 0.5 GB; an XML tree takes ten times the size of its file.
_MAX_JSON_BYTES = 2**30
_MAX_XML_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value with its position in the file, for messages."""

    value: Any
    where: str

    def fail(self, expected: str) -> NoReturn:
        """Raise an AnnotationError that shows the value found and what was expected."""
        found = repr(self.value)
        raise AnnotationError(f"{self.where} is {found[:60]}{'...' * (len(found) > 60)}; expected {expected}")

    def has(self, key: str) -> bool:
        """Whether this is an object with a non-null value under `key`."""
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def at(self, key: str) -> Json:
        """The value under `key`."""
        if not isinstance(self.value, dict):
            self.fail("an object {...}")
        if key not in self.value:
            raise AnnotationError(f"{self.where} lacks {key!r}; the file is damaged or of another format")
        return Json(self.value[key], f"{self.where}: {key}" if ":" not in self.where else f"{self.where}.{key}")

    def items(self) -> list[Json]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            self.fail("a list [...]")
        return [Json(v, f"{self.where}[{n}]") for n, v in enumerate(self.value)]

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            self.fail("a text")
        return self.value

    def integer(self) -> int:
        """An integer; 3.0 counts, True does not."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not abs(self.value) < 10**12:
            self.fail("an integer")
        if self.value != int(self.value):
            self.fail("an integer")
        return int(self.value)

    def integers(self) -> NDArray[np.int64]:
        """A list of integers: (n,)."""
        if not isinstance(self.value, list) or not all(type(v) is int and abs(v) < 10**12 for v in self.value):
            return np.array([v.integer() for v in self.items()], np.int64)
        return np.array(self.value, np.int64)

    def number(self) -> float:
        """A finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not _finite(self.value):
            self.fail("a number")
        return float(self.value)

    def points(self) -> Points:
        """A list of [x, y]: (n, 2)."""
        if not isinstance(self.value, list) or not all(isinstance(p, list) and len(p) == 2 for p in self.value):
            self.fail("a list of points [x, y]")
        return self._numbers([v for p in self.value for v in p]).reshape(-1, 2)

    def flat_points(self) -> Points:
        """A list x0, y0, x1, y1, ...: (n, 2)."""
        if not isinstance(self.value, list) or len(self.value) % 2:
            self.fail("a list of numbers x0, y0, x1, y1, ...")
        return self._numbers(self.value).reshape(-1, 2)

    def _numbers(self, values: list[Any]) -> Points:
        if any(type(v) not in (int, float) or not _finite(v) for v in values):
            self.fail("finite numbers only")
        return np.array(values, np.float64)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


@dataclass(frozen=True, slots=True)
class Xml:
    """An XML element with the name of its file, for messages."""

    element: ET.Element
    file: str

    @property
    def where(self) -> str:
        """File and element, with the attributes that identify it."""
        known = [f'{k}="{self.element.get(k)}"' for k in ("id", "name", "label", "frame") if k in self.element.attrib]
        return f"{self.file}: <{' '.join([self.element.tag, *known])[:120]}>"

    @property
    def tag(self) -> str:
        """The element's name."""
        return self.element.tag

    def children(self, tag: str | None = None) -> list[Xml]:
        """The child elements, all or those of one name."""
        return [Xml(e, self.file) for e in self.element if tag is None or e.tag == tag]

    def find_text(self, path: str) -> str | None:
        """The text of the first element at `path`, stripped; None if there is none."""
        found = self.element.findtext(path)
        return None if found is None else found.strip()

    def text(self, name: str, default: str | None = None) -> str:
        """An attribute as text."""
        value = self.element.get(name, default)
        if value is None:
            raise AnnotationError(f"{self.where} lacks the attribute {name!r}; export the file again from CVAT")
        return value

    def integer(self, name: str, default: str | None = None) -> int:
        """An attribute as an integer."""
        text = self.text(name, default)
        return integer_of(text, f"{self.where}: {name}")

    def number(self, name: str, default: str | None = None) -> float:
        """An attribute as a finite number."""
        text = self.text(name, default)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise AnnotationError(f"{self.where}: {name} is {text[:40]!r}; expected a number")
        return value


def integer_of(text: str, where: str) -> int:
    """A decimal integer of at most 12 digits.

    Raises:
        AnnotationError: naming the position in the file.
    """
    stripped = text.strip()
    if not stripped.removeprefix("-").isdecimal() or len(stripped) > 12:
        raise AnnotationError(f"{where} is {text[:40]!r}; expected an integer")
    return int(stripped)


class _NoDoctype(ET.TreeBuilder):
    """Entities are declared in a DOCTYPE; without one nothing is expanded, and no external file is opened."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise AnnotationError(f"the XML declares a document type ({name!r}), which no annotation tool writes")


def load_document(path: Path) -> Json | Xml:
    """The content of an annotation file, recognised as JSON or XML by its first character.

    Raises:
        ReadError: if the file cannot be opened.
        AnnotationError: if it is too large, neither JSON nor XML, damaged, nested too deeply, or declares a DOCTYPE.
    """
    try:
        check_source(path)
        size = path.stat().st_size
        if size > _MAX_JSON_BYTES:
            raise AnnotationError(
                f"{path} has {size} bytes; annotation files up to {_MAX_JSON_BYTES} bytes can be read"
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise ReadError(f"{path} does not exist") from None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    start = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return _load_xml(content, path)
    if not start.startswith((b"{", b"[")):
        raise AnnotationError(
            f"{path} is neither JSON nor XML; expected an export of Labelme, CVAT, Supervisely or COCO"
        )
    try:
        return Json(json.loads(content.decode("utf-8-sig")), str(path))
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is damaged: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise AnnotationError(f"{path} is damaged: its lists or objects are nested too deeply") from None
    except ValueError as error:
        raise AnnotationError(f"{path} is damaged or cut off: {error}") from None


def _load_xml(content: bytes, path: Path) -> Xml:
    if len(content) > _MAX_XML_BYTES:
        raise AnnotationError(f"{path} has {len(content)} bytes; XML files up to {_MAX_XML_BYTES} bytes can be read")
    parser = ET.XMLParser(target=_NoDoctype())
    try:
        parser.feed(content)
        root = parser.close()
    except AnnotationError as error:
        raise AnnotationError(f"{path} is refused: {error}") from None
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        raise AnnotationError(f"{path} is damaged or cut off: {error}") from None
    return Xml(root, str(path))
