"""A new public name is a decision: it is made here too."""

from __future__ import annotations

import importlib

import pytest

import medseg

PUBLIC = [
    "MedsegError",
    "Volume",
    "__version__",
    "evaluate",
    "load_model",
    "read",
    "read_all",
    "train",
    "window",
    "write",
]
FLOOR_0 = ["errors", "volume", "geometry", "windowing", "labels", "config", "plugins"]


def test_the_public_names_are_these() -> None:
    assert medseg.__all__ == PUBLIC
    assert set(dir(medseg)) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(medseg, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        _ = medseg.segment


@pytest.mark.parametrize("name", FLOOR_0)
def test_what_a_module_offers_is_documented(name: str) -> None:
    module = importlib.import_module(f"medseg.{name}")
    functions = [
        n for n in module.__all__ if callable(getattr(module, n)) and hasattr(getattr(module, n), "__module__")
    ]
    undocumented = [
        n for n in functions if getattr(module, n).__module__ == module.__name__ and not getattr(module, n).__doc__
    ]
    assert not undocumented
