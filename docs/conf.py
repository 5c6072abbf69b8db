"""Sphinx: how the documentation is built (`make docs`). Pages that follow from the code are written first."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from pages_from_code import write_pages  # noqa: E402

from medseg.version import __version__  # noqa: E402

project = "medseg"
author = "the medseg contributors"
project_copyright = "2026, the medseg contributors; Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated", "gallery/*.py"]
nitpicky = True
# Only what medseg documents itself can be resolved: the documentation is built without a network.
# The parts of a configuration are on a page of their own, by their keys.
nitpick_ignore_regex = [(r"py:.*", r"(?!medseg\.).*"), (r"py:class", r"medseg\.config\..*")]
# Types of signatures that are not part of the public interface.
nitpick_ignore = [
    ("py:class", "medseg.augmentation.change.SettingsT"),
    ("py:class", "medseg.inference.bundle_parts.TeacherInfo"),
    ("py:class", "medseg.inference.bundle_parts._on_one_line"),
    ("py:class", "medseg.inference.exporting.int8.Int8Options"),
    ("py:class", "medseg.inference.exporting.model.Exported"),
    ("py:class", "medseg.inference.frames.stream.StreamTimings"),
    ("py:class", "medseg.inference.load_options.LoadOptions"),
    ("py:class", "medseg.inference.sliding_window.V"),
    ("py:class", "medseg.losses.voxels.Voxels"),
    ("py:class", "medseg.losses.voxels.VoxelLoss"),
    ("py:class", "medseg.nets.backbones.strides.Backbone"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Docstrings write code in single backticks, as Markdown does.
default_role = "literal"
# Two dashes begin an option.
smartquotes = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

html_theme = "furo"
html_title = f"medseg {__version__}"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
# No web fonts, no trackers: the pages open offline.


def escape_stars(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Keep the stars of formulas such as `n * spacing` from being read as emphasis."""
    in_example = False
    for n, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>> ") or (in_example and bool(line.strip()))
        if not in_example and not re.match(r"\s*\*{1,2}\w+:", line):
            parts = re.split(r"(`[^`]*`)", line)
            lines[n] = "".join(part if part.startswith("`") else part.replace("*", r"\*") for part in parts)


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx looks for sources."""
    write_pages(HERE / "_generated")
    # Before napoleon, which writes stars of its own.
    app.connect("autodoc-process-docstring", escape_stars, priority=100)
