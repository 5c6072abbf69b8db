"""Builders named in the configuration: found, or refused in one readable line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medseg.augmentation import load_custom
from medseg.errors import ConfigError
from medseg.plugins import is_plugin, resolve


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def test_a_colon_makes_a_plugin() -> None:
    assert is_plugin("my.nets:build") and not is_plugin("unet")


def test_a_builder_is_found_in_an_installed_module() -> None:
    assert resolve("math:sqrt", "net.name")(4) == 2
    assert resolve("pathlib:Path.cwd", "net.name")() == Path.cwd()


def test_a_builder_is_found_in_the_current_folder(folder: Path) -> None:
    (folder / "plugin_here.py").write_text(
        "class Same:\n"
        "    def draw(self, rng, shape): return None\n"
        "    def apply(self, image, labels, params): return image, labels\n"
    )
    assert load_custom("plugin_here:Same").apply(1, 2, None) == (1, 2)  # type: ignore[arg-type,comparison-overlap]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("math", "not of the form"),
        ("math:", "not of the form"),
        (":sqrt", "not of the form"),
        ("ma th:sqrt", "not of the form"),
        ("mathss:sqrt", "no module 'mathss'"),
        ("medseg.nowhere:build", "no module 'medseg.nowhere'"),
        ("math:sqrtt", "did you mean 'sqrt'"),
        ("math:pi", "is a float, expected a function"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        resolve(name, "net.name")
    assert str(caught.value).startswith("net.name: ") and "\n" not in str(caught.value)


def test_a_module_that_cannot_be_imported_says_why(folder: Path) -> None:
    (folder / "plugin_needs.py").write_text("import plugin_not_there\n")
    (folder / "plugin_broken.py").write_text("def f(:\n")
    with pytest.raises(ConfigError, match="imports 'plugin_not_there', which is not installed"):
        resolve("plugin_needs:build", "loss.name")
    with pytest.raises(ConfigError, match="cannot be imported: invalid syntax"):
        resolve("plugin_broken:build", "loss.name")


def test_an_augmentation_without_draw_or_apply_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"augmentation.custom: 'builtins:dict' built a dict without draw\(\)"):
        load_custom("builtins:dict")
