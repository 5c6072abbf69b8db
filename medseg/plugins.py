"""A researcher's own net, loss or augmentation, named `"package.module:builder"`.

Where the user's own configuration names it, that is permission to import it. Where a model bundle names it, its module
must have been permitted by name: `--allow-code`, `allow_code=`, or the environment variable `MEDSEG_ALLOW_CODE`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from medseg.errors import CheckpointError, ConfigError
from medseg.lookup import nearest_hint

__all__ = ["ALLOW_CODE", "is_plugin", "permitted_modules", "resolve", "resolve_permitted"]

ALLOW_CODE = "MEDSEG_ALLOW_CODE"
"""Environment variable: modules, separated by commas, from which a bundle's network may be built."""


def is_plugin(name: str) -> bool:
    """Whether a name means a builder outside medseg: it contains a colon, which no built-in name does."""
    return ":" in name


def resolve(name: str, what: str) -> Callable[..., Any]:
    """The callable that `"package.module:builder"` names; the builder may be dotted (`module:Class.method`).

    Modules are looked for where Python looks and then in the current folder, so that a file beside the
    configuration serves without being installed. Importing runs that module's code.

    Args:
        name: `"package.module:builder"`.
        what: the configuration key that contains it, for the message, e.g. `"net.name"`.

    Raises:
        ConfigError: malformed name, no such module, a module that cannot be imported, no such attribute, not callable.

    Example:
        >>> resolve("math:sqrt", "net.name")(4)
        2.0
    """
    module_name, attribute = _parts(name, what)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end: a file here never hides an installed package
    module = _module(module_name, name, what, "install it, or run from the folder that holds it")
    return _builder(module, module_name, attribute, name, what)


def permitted_modules(allow_code: Iterable[str]) -> tuple[str, ...]:
    """The modules that may be imported where a bundle names them: those given and those of `MEDSEG_ALLOW_CODE`.

    Raises:
        ConfigError: for a string instead of a sequence, or an entry that is not the name of a module.

    Example:
        >>> permitted_modules(["my_package.nets"])
        ('my_package.nets',)
    """
    if isinstance(allow_code, str):
        raise ConfigError(f"allow_code is {allow_code!r}; give a sequence of module names, e.g. ({allow_code!r},)")
    of_environment = [each.strip() for each in os.environ.get(ALLOW_CODE, "").split(",")]
    found = tuple(dict.fromkeys([*allow_code, *(each for each in of_environment if each)]))
    for each in found:
        if not isinstance(each, str) or not all(part.isidentifier() for part in each.split(".")):
            raise ConfigError(
                f"{each!r} is not the name of a module whose code may be run; give the module alone, e.g. "
                "my_package.nets for the network my_package.nets:build"
            )
    return found


def resolve_permitted(name: str, what: str, permitted: Sequence[str], bundle: Sequence[Path]) -> Callable[..., Any]:
    """The callable that a bundle names, if its module was permitted; otherwise nothing is imported.

    Permission is for one module by its exact name: `a.b` permits `a.b:build`, neither `a.b.c:build` nor `a:build`. What
    that module has merely imported from other packages is not permitted with it. The module is looked for where Python
    looks, never in the bundle.

    Args:
        name: `"package.module:builder"`.
        what: whose name it is, for the message, e.g. the bundle's path.
        permitted: names of modules, see `permitted_modules`.
        bundle: the folders (or the zip) that the bundle came in.

    Raises:
        CheckpointError: a malformed name, a module that was not permitted or lies in the bundle.
        ConfigError: no such module, a module that cannot be imported, no such attribute, not callable.
    """
    try:
        module_name, attribute = _parts(name, what)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    top = module_name.partition(".")[0]
    if any((place / f"{top}.py").exists() or (place / top).is_dir() for place in bundle if place.is_dir()):
        raise CheckpointError(
            f"{what} carries the code of its own net ({top}); medseg runs no code from a bundle, so nothing was run: "
            f"install {top} yourself, and permit it by --allow-code {module_name} or allow_code=({module_name!r},)"
        )
    if module_name not in permitted:
        raise CheckpointError(
            f"{what} needs the net {name!r} of the module {module_name}, which is not part of medseg; nothing was run: "
            f"if you trust that module, permit it by --allow-code {module_name} (in Python "
            f"allow_code=({module_name!r},), or {ALLOW_CODE}={module_name})"
        )
    _refuse_inside(module_name, what, bundle)
    return _builder(_module(module_name, name, what, "install it"), module_name, attribute, name, what, own=True)


def _parts(name: str, what: str) -> tuple[str, str]:
    module_name, colon, attribute = name.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise ConfigError(f"{what}: {name!r} is not of the form 'package.module:builder'")
    return module_name, attribute


def _refuse_inside(module_name: str, what: str, bundle: Sequence[Path]) -> None:
    """Refuse a module that Python would take from the bundle; packages above it are imported to find it."""
    places = [place.resolve() for place in bundle]
    parts = module_name.split(".")
    for n in range(1, len(parts) + 1):
        prefix = ".".join(parts[:n])
        try:
            spec = importlib.util.find_spec(prefix)
        except (
            ImportError,
            SyntaxError,
            ValueError,
        ):  # the import itself reports these better, or the module has no file
            return
        if spec is None:
            return
        for found in [spec.origin, *(spec.submodule_search_locations or ())]:
            if found is not None and any(Path(found).resolve().is_relative_to(place) for place in places):
                raise CheckpointError(
                    f"{what} would take {prefix} from {found}, which came with the bundle; medseg runs no code from a "
                    "bundle, so nothing was run: install it elsewhere"
                )


def _builder(
    module: Any, module_name: str, attribute: str, name: str, what: str, own: bool = False
) -> Callable[..., Any]:
    """The callable at the end of a dotted `attribute`; with `own` only what belongs to the module's own package."""
    current = module
    for part in attribute.split("."):
        if not hasattr(current, part):
            hint = nearest_hint(part, [n for n in dir(current) if not n.startswith("_")])
            raise ConfigError(f"{what}: {name!r}: {module_name} has no {part!r}{hint}")
        current = getattr(current, part)
        if own and _is_foreign(current, module_name):
            origin = getattr(current, "__module__", None) or getattr(current, "__name__", "elsewhere")
            raise CheckpointError(
                f"{what}: {name!r} is not defined in {module_name}, it comes from {origin}; nothing was run: only "
                f"code of {module_name} was permitted"
            )
    if not callable(current):
        raise ConfigError(f"{what}: {name!r} is a {type(current).__name__}, expected a function or class to call")
    builder: Callable[..., Any] = current
    return builder


def _is_foreign(found: Any, module_name: str) -> bool:
    """Whether a module has imported this from elsewhere; objects that are neither function nor class are its own."""
    if isinstance(found, ModuleType):
        return True
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return False
    origin = getattr(found, "__module__", None) or ""
    return bool(origin.partition(".")[0] != module_name.partition(".")[0])


def _module(module_name: str, name: str, what: str, advice: str) -> Any:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            message = f"no module {missing!r}; {advice}"
        else:
            message = f"{module_name} imports {missing!r}, which is not installed"
        raise ConfigError(f"{what}: {name!r}: {message}") from None
    except (ImportError, SyntaxError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{what}: {name!r}: {module_name} cannot be imported: {reason}") from None
