"""Models of nnU-Net that were converted before: a folder of the user's cache, found by what the original is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from medseg.disk.atomic import write_text_atomic
from medseg.inference.bundle_files import INFO
from medseg.inference.importing.nnunet import checkpoints_in, import_nnunet, model_folder

__all__ = ["cache_folder", "converted"]

# Conversions of other releases may lack what this one writes.
FORMAT = 1


def cache_folder() -> Path:
    """`MEDSEG_CACHE`, else `medseg` in the user's folder for caches."""
    given = os.environ.get("MEDSEG_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medseg"


def converted(source: Path) -> Path:
    """The bundle of a model folder of nnU-Net, or of a zip of one, made at the first call.

    Looked up by path, size and time of the files, then by their contents, so that a copied model is not made again.

    Args:
        source: the folder, one that holds just one, or a zip.

    Raises:
        CheckpointError: as `import_nnunet`.
        WriteError: disk full or no permission in the cache; `MEDSEG_CACHE` chooses another folder.
    """
    folder = source if source.is_file() else model_folder(source)
    files = (
        [folder]
        if folder.is_file()
        else [folder / "plans.json", folder / "dataset.json", *checkpoints_in(folder).values()]
    )
    states = [(file.resolve(), file.stat()) for file in files]
    seen = hashlib.sha256(repr([(str(f), s.st_size, s.st_mtime_ns) for f, s in states]).encode()).hexdigest()
    cache = cache_folder() / f"nnunet{FORMAT}"
    note = cache / "seen" / f"{seen}.json"
    if note.is_file():
        bundle = cache / str(json.loads(note.read_text(encoding="utf-8"))["bundle"])
        if (bundle / INFO).is_file():
            return bundle
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    bundle = cache / digest.hexdigest()
    if not (bundle / INFO).is_file():
        import_nnunet(folder, bundle)
    write_text_atomic(note, json.dumps({"format_version": 1, "bundle": bundle.name}))
    return bundle
