"""YAML texts as plain values, safely and in bounded time and memory; and the text files that hold them."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

__all__ = ["MOST_LIST_BYTES", "parse_yaml", "read_text"]

# What a person writes is kilobytes long; lists of cases are longer.
_MOST_BYTES, MOST_LIST_BYTES = 1 << 20, 1 << 28
MOST_VALUES = 200_000
# libyaml's recursion overflows the stack some 100,000 levels deep, and with it ends the program.
MOST_LEVELS = 100
_TAG = "tag:yaml.org,2002:"
_WORDS = frozenset(
    word for each in ("yes", "no", "on", "off") for word in (each, each.capitalize(), each.upper())
)  # booleans of YAML 1.1
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def read_text(path: Path, most_bytes: int = _MOST_BYTES) -> str:
    """The UTF-8 text of a regular file, with or without a byte order mark.

    Raises:
        OSError: cannot be opened, longer than `most_bytes`, or not a regular file: reading a pipe could wait forever.
        UnicodeDecodeError: not UTF-8.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a folder, pipe or device; expected a text file")
    if status.st_size > most_bytes:
        raise OSError(
            f"it has {status.st_size / 1e6:.0f} MB; expected a text file of at most {most_bytes / 1e6:.0f} MB"
        )
    return path.read_text(encoding="utf-8-sig")


def parse_yaml(text: str, options: bool = False) -> Any:
    """The plain values in a YAML text; no code is run.

    As in YAML 1.2, `yes`, `no`, `on`, `off` and dates are text: labels and choices may be called so. Only below keys
    named `options`, which are passed to code as they are, these words are booleans and `1e-3` is a number.

    Args:
        text: at most 1 MB.
        options: whether the text itself is the value of such a key.

    Raises:
        yaml.YAMLError: for text that is not YAML, longer than 1 MB, nested more than 100 levels deep, with more than
            200,000 values or that many by its aliases, with a key given twice in one mapping, or with a date that
            does not exist.

    Example:
        >>> parse_yaml("{lung: 1, tumour: [2, 3], crf: off}")
        {'lung': 1, 'tumour': [2, 3], 'crf': 'off'}
    """
    if len(text) > _MOST_BYTES:
        raise yaml.YAMLError(f"it has {len(text) / 1e6:.0f} MB; expected at most {_MOST_BYTES / 1e6:.0f} MB")
    try:
        _check_size(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _values_of(node, {}) > MOST_VALUES:
                raise yaml.YAMLError(f"aliases make more than {MOST_VALUES} values of it")
            for mapping in _mappings_in(node):
                _refuse_duplicates(mapping)
                for key, value in mapping.value:
                    if key.value == "options":
                        _resolve_options(value)
            if options:
                _resolve_options(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, TypeError, OverflowError) as error:
        # From numbers that do not exist, and from lists as keys.
        raise yaml.YAMLError(str(error)) from None


# libyaml is several times faster; builds of PyYAML without it have the loader in Python only.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Plain values, of which only true and false are booleans; dates are checked and stay text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}bool"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def _date(loader: Any, node: yaml.ScalarNode) -> Any:
    loader.construct_yaml_timestamp(node)
    return node.value


_Loader.add_constructor(f"{_TAG}timestamp", _date)


def _check_size(text: str) -> None:
    """Count values and levels before anything is built of them."""
    level = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            level -= 1
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            level += isinstance(event, yaml.CollectionStartEvent)
        if level > MOST_LEVELS:
            raise yaml.YAMLError(f"nested more than {MOST_LEVELS} levels deep")
        if values > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES} values")


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _values_of(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node has where each alias is written out; infinite for one that contains itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        known[id(node)] = 1 + sum(_values_of(each, known) for each in _inner(node))
    return known[id(node)]


def _nodes_in(node: yaml.Node) -> Iterator[yaml.Node]:
    """Every node once, however many aliases it has."""
    waiting, seen = [node], set()
    while waiting:
        current = waiting.pop()
        if id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += _inner(current)


def _mappings_in(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    return (each for each in _nodes_in(node) if isinstance(each, yaml.MappingNode))


def _refuse_duplicates(mapping: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line, first = key.start_mark.line + 1, lines.get((key.tag, key.value))
        lines[key.tag, key.value] = line
        if first is not None:
            where = f"twice in line {line}" if first == line else f"in line {first} and again in line {line}"
            raise yaml.YAMLError(f"the key {key.value!r} is given {where}; keep one of them")


def _resolve_options(node: yaml.Node) -> None:
    for each in _nodes_in(node):
        if isinstance(each, yaml.ScalarNode) and not each.style and each.tag == f"{_TAG}str":
            if each.value in _WORDS:
                each.tag = f"{_TAG}bool"
            elif _EXPONENT.fullmatch(each.value):
                each.tag = f"{_TAG}float"
