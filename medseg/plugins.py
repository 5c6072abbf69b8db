"""A researcher's own net, loss or augmentation, named `"package.module:builder"` in the configuration."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError

__all__ = ["is_plugin", "resolve"]


def is_plugin(name: str) -> bool:
    """Whether a name means a builder outside medseg: it holds a colon, which no built-in name does."""
    return ":" in name


def resolve(name: str, what: str) -> Callable[..., Any]:
    """The callable that `"package.module:builder"` names; the builder may be dotted (`module:Class.method`).

    Modules are looked for where Python looks and then in the current folder, so that a file beside the
    configuration serves without being installed. Importing runs that module's code.

    Args:
        name: `"package.module:builder"`.
        what: the configuration key that holds it, for the message, e.g. `"net.name"`.

    Raises:
        ConfigError: malformed name, no such module, a module that cannot be imported, no such attribute, not callable.

    Example:
        >>> resolve("math:sqrt", "net.name")(4)
        2.0
    """
    module_name, colon, attribute = name.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{what}: {name!r} is not of the form 'package.module:builder'")
    current: Any = _module(module_name, name, what)
    for part in attribute.split("."):
        if not hasattr(current, part):
            near = difflib.get_close_matches(part, [n for n in dir(current) if not n.startswith("_")], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{what}: {name!r}: {module_name} has no {part!r}{hint}")
        current = getattr(current, part)
    if not callable(current):
        raise ConfigError(f"{what}: {name!r} is a {type(current).__name__}, expected a function or class to call")
    builder: Callable[..., Any] = current
    return builder


def _module(module_name: str, name: str, what: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end: a file here never hides an installed package
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            message = f"no module {missing!r}; install it, or run from the folder that holds it"
        else:
            message = f"{module_name} imports {missing!r}, which is not installed"
        raise ConfigError(f"{what}: {name!r}: {message}") from None
    except (ImportError, SyntaxError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{what}: {name!r}: {module_name} cannot be imported: {reason}") from None
