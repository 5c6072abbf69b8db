"""Models of nnU-Net that were converted before: a folder of the user's cache, found by what the original is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from medseg.disk.atomic import write_text_atomic
from medseg.disk.caches import cache_folder
from medseg.errors import CheckpointError
from medseg.inference.bundle_files import INFO, open_regular
from medseg.inference.importing.nnunet_bundle import import_nnunet
from medseg.inference.importing.nnunet_layout import layout_of

__all__ = ["converted"]

# Conversions of other releases may lack what this one writes.
FORMAT = 2


def converted(source: Path) -> Path:
    """The bundle of a model folder of nnU-Net, or of a zip of one, made at the first call.

    Looked up by path, size and time of the files, then by their contents, so that a copied model is not made again.

    Args:
        source: as for `import_nnunet`.

    Raises:
        CheckpointError: as `import_nnunet`.
        WriteError: disk full or no permission in the cache; `MEDSEG_CACHE` chooses another folder.
    """
    files = [source] if source.is_file() else list(layout_of(source).files())
    try:
        states = [(file.resolve(), file.stat()) for file in files]
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read ({error.strerror}); copy the whole model") from None
    seen = hashlib.sha256(repr([(str(f), s.st_size, s.st_mtime_ns) for f, s in states]).encode()).hexdigest()
    cache = cache_folder() / f"nnunet{FORMAT}"
    note = cache / "seen" / f"{seen}.txt"
    # What is not a bundle, such as a note that was damaged, is made anew.
    noted = cache / (note.read_text(encoding="utf-8", errors="replace")[:64] if note.is_file() else "none")
    if (noted / INFO).is_file():
        return noted
    digest = hashlib.sha256()
    for file in files:
        try:
            with open_regular(file) as opened:
                each = hashlib.sha256()
                while part := opened.read(1 << 20):
                    each.update(part)
            digest.update(each.digest())
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read ({error.strerror}); copy the whole model") from None
    bundle = cache / digest.hexdigest()
    if not (bundle / INFO).is_file():
        import_nnunet(source, bundle)
    write_text_atomic(note, bundle.name)
    return bundle
