"""The packages that medseg needs, and those of its optional parts, as pyproject.toml declares them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Requirement", "requirements"]

# Packages whose module has another name.
_MODULES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyjpegls": "jpeg_ls",
    "pylibjpeg-openjpeg": "openjpeg",
    "pylibjpeg-rle": "rle",
    "python-gdcm": "gdcm",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "simpleitk": "SimpleITK",
    "surface-distance-based-measures": "surface_distance",
}
# For those who work on medseg itself.
_NOT_SHOWN = ("dev", "docs")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package.

    Args:
        package: its name on the package index.
        at_least: the oldest version that will do; '' if any.
        extra: the optional part that needs it; '' for medseg itself.
    """

    package: str
    at_least: str = ""
    extra: str = ""

    @property
    def module(self) -> str:
        """The name to import."""
        return _MODULES.get(self.package.lower(), self.package.replace("-", "_"))

    @property
    def version(self) -> str:
        """The version that is installed; '' where none is."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return ""

    @property
    def is_too_old(self) -> bool:
        """Whether a version is installed that is older than the oldest that will do."""
        return bool(self.version) and _numbers(self.version) < _numbers(self.at_least)


def requirements() -> list[Requirement]:
    """All of them but those for developers, medseg's own first.

    Of a source tree, pyproject.toml is read: what was noted when it was installed may be out of date.
    """
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        content = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        texts = {"": content["dependencies"], **content["optional-dependencies"]}
        found = [_parsed(text, extra) for extra, each in texts.items() for text in each]
    else:
        found = list(_installed(metadata.requires("medseg") or ()))
    found = [each for each in found if each.extra not in _NOT_SHOWN]
    return sorted(found, key=lambda each: (each.extra, each.package.lower()))


def _installed(texts: Iterable[str]) -> Iterable[Requirement]:
    for text in texts:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", text)
        yield _parsed(text, extra[1] if extra else "")


def _parsed(text: str, extra: str) -> Requirement:
    name = re.match(r"[\w.-]+", text)
    version = re.search(r">=\s*([\w.]+)", text.partition(";")[0])
    return Requirement(name[0] if name else text, version[1] if version else "", extra)


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version up to the first part that is none: 2.13.0+cpu is (2, 13, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
