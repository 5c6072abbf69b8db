"""Which importer a source needs."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import CheckpointError
from medseg.inference.importing.deepbet import import_deepbet, is_deepbet
from medseg.inference.importing.nnunet_bundle import import_nnunet
from medseg.inference.importing.nnunet_folders import is_nnunet

__all__ = ["import_model"]


def import_model(source: str | Path, target: str | Path) -> Path:
    """Write a model of another program as a bundle.

    Args:
        source: a model folder of nnU-Net v2, one above it (see `import_nnunet`), or a zip of it; or 'deepbet', its
            wheel or folder.
        target: the bundle.

    Returns:
        The bundle's folder.

    Raises:
        CheckpointError: a source that cannot be imported.
        MissingPartError: a package that is not installed.
        WriteError: disk full, no permission, or a folder that holds something else.

    Example:
        >>> import_model("study/", "imported")
        Traceback (most recent call last):
        ...
        medseg.errors.CheckpointError: study/ cannot be imported; give a model folder of nnU-Net v2 ...
    """
    if is_deepbet(source):
        return import_deepbet(source, target)
    if is_nnunet(source):
        return import_nnunet(source, target)
    raise CheckpointError(
        f"{source} cannot be imported; give a model folder of nnU-Net v2 or a zip of it, "
        "deepbet, or the path of its wheel"
    )
