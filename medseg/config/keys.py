"""Every key of a configuration by its dotted name, and which one a wrong name was meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from medseg.config.run import RunConfig
from medseg.lookup import nearest

__all__ = ["Key", "all_keys", "entry_keys", "is_known", "keys_meant", "nearest_keys"]

# Names that other programs and papers use for these keys, without dots and underscores.
_SYNONYMS = {
    **dict.fromkeys(("lr", "stepsize"), "training.learning_rate"),
    **dict.fromkeys(("iterations", "iters", "steps"), "training.max_iterations"),
    **dict.fromkeys(("epochs", "epoch", "numepochs"), "training.max_epochs"),
    **dict.fromkeys(("earlystopping", "earlystop"), "training.patience"),
    **dict.fromkeys(("accumulation", "accumulategradbatches", "gradaccum"), "training.accumulate"),
    **dict.fromkeys(("minutes", "hours", "maxhours", "time", "maxtime", "budget"), "training.max_minutes"),
    **dict.fromkeys(("batch", "bs"), "training.batch_size"),
    **dict.fromkeys(("wd",), "training.weight_decay"),
    **dict.fromkeys(("amp", "fp16"), "training.mixed_precision"),
    **dict.fromkeys(("freeze", "freezestages", "trainablelayers"), "training.frozen"),
    **dict.fromkeys(("backbonelr", "backbonerate", "lrmult"), "training.layer_rates"),
    **dict.fromkeys(("freezebn", "frozenbn"), "training.batch_statistics"),
    "pretrained": "training.init",
    **dict.fromkeys(("model", "arch", "architecture", "network"), "net.name"),
    **dict.fromkeys(("encoder",), "net.backbone"),
    **dict.fromkeys(("criterion",), "loss.name"),
    **dict.fromkeys(("dataset", "datadir", "datapath", "folder", "path", "input"), "data.root"),
    **dict.fromkeys(("classes", "regions"), "data.labels"),
    **dict.fromkeys(("threshold",), "data.label_threshold"),
    **dict.fromkeys(("spacing",), "plan.spacing_mm"),
    **dict.fromkeys(("patch",), "plan.patch_size"),
    **dict.fromkeys(("augment", "aug"), "augmentation.enabled"),
    **dict.fromkeys(("tta",), "prediction.mirror"),
    **dict.fromkeys(("gpu",), "device"),
    **dict.fromkeys(("o", "out", "outdir", "outputdir"), "output"),
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Args:
        name: dotted, e.g. 'training.max_minutes'.
        schema: its JSON schema: type, choices, bounds and default.
        part: docstring of the model that the key belongs to.
        is_open: whether names chosen by the user follow it, as in `data.labels.lung`.
        is_required: whether there is no default.
    """

    name: str
    schema: Mapping[str, Any]
    part: str
    is_open: bool
    is_required: bool


@lru_cache(maxsize=1)
def all_keys() -> dict[str, Key]:
    """Dotted name -> key, in the order of the models."""
    schema = RunConfig.model_json_schema()
    return {key.name: key for key in _walk(schema, schema["$defs"], "")}


@lru_cache(maxsize=1)
def entry_keys() -> dict[str, Key]:
    """Keys of the entries of lists, as `data.select.modality`; of a list of several kinds with the kind's name before.

    Example:
        >>> entry_keys()["augmentation.extra.noise.std"].schema["default"]
        0.15
    """
    models = RunConfig.model_json_schema()["$defs"]
    return {key.name: key for each in all_keys().values() for key in _walk_entries(each, models)}


def is_known(name: str) -> bool:
    """Whether a dotted name is a key, a part such as 'training', or lies below a key with names of the user's own."""
    keys = all_keys()
    parts = name.split(".")
    above = (keys.get(".".join(parts[:n])) for n in range(1, len(parts)))
    return name in keys or any(key.startswith(f"{name}.") for key in keys) or any(k and k.is_open for k in above)


def keys_meant(name: str) -> list[str]:
    """The keys that a wrong name probably means: other separators or case, the last part alone, or another usual name.

    Example:
        >>> keys_meant("Data-Root"), keys_meant("max_minutes"), keys_meant("lr")
        (['data.root'], ['training.max_minutes'], ['training.learning_rate'])
    """
    keys, plain = all_keys(), _plain(name)
    whole = [key for key in keys if _plain(key) == plain]
    if whole:
        return whole
    if plain in _SYNONYMS:
        return [_SYNONYMS[plain]]
    last = _plain(name.rpartition(".")[2])
    ends = [key for key in keys if _plain(key.rpartition(".")[2]) == last]
    if len(ends) > 1 and "." in name:
        ends = _close(plain, ends, cutoff=0.7) or ends
    return ends or ([_SYNONYMS[last]] if last in _SYNONYMS else [])


def nearest_keys(name: str) -> list[str]:
    """The key whose name, or whose last part, is spelt most like this one; none where nothing is near."""
    keys = list(all_keys())
    by_whole = _close(_plain(name), keys, cutoff=0.8)
    if by_whole:
        return by_whole
    last = _plain(name.rpartition(".")[2])
    ends: dict[str, list[str]] = {}
    for key in keys:
        ends.setdefault(_plain(key.rpartition(".")[2]), []).append(key)
    return [key for end in nearest(last, ends, alike=0.75) for key in ends[end]]


def _close(plain: str, keys: Sequence[str], cutoff: float) -> list[str]:
    by_plain = {_plain(key): key for key in keys}
    return [by_plain[each] for each in nearest(plain, by_plain, alike=cutoff)]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _walk(part: Mapping[str, Any], models: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    for name, schema in part["properties"].items():
        dotted = prefix + name
        branches = schema.get("anyOf", [schema])
        inner = [models[each["$ref"].rpartition("/")[2]] for each in branches if "$ref" in each]
        if "$ref" not in schema:
            is_open = any(each.get("type") == "object" for each in branches)
            yield Key(dotted, schema, part["description"], is_open, name in part.get("required", ()))
        for model in inner:
            yield from _walk(model, models, f"{dotted}.")


def _walk_entries(key: Key, models: Mapping[str, Any]) -> Iterator[Key]:
    for branch in key.schema.get("anyOf", [key.schema]):
        for model in _models_in(branch.get("items", {}), models):
            kind = model["properties"].get("name", {}).get("const")
            for inner in _walk(model, models, f"{key.name}.{kind}." if kind else f"{key.name}."):
                if "const" not in inner.schema:
                    yield inner


def _models_in(schema: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "$ref" in schema:
        yield models[schema["$ref"].rpartition("/")[2]]
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _models_in(branch, models)
