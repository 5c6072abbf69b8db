"""What `medseg export` says at its end."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import ConfigError
from medseg.inference.exporting.int8 import Int8Options
from medseg.inference.exporting.model import Exported

__all__ = ["export_text", "int8_options"]


def int8_options(int8: bool, calibration: Path | None, max_loss: float) -> Int8Options | None:
    """The options of `--int8`; None without it.

    Raises:
        ConfigError: a calibration without `--int8`, or an impossible loss.
    """
    if not int8 and calibration is not None:
        raise ConfigError("--calibration is for --int8; add that, or leave it out")
    return Int8Options(calibration, max_loss) if int8 else None


def export_text(exported: Exported) -> str:
    """A table of the networks: size, and how near each comes to the original.

    Args:
        exported: what `export_model` returned.
    """
    rows = [("file", "MB", "largest difference", "other labels")]
    rows += [
        (each.name, f"{each.size / 1e6:.1f}", f"{each.parity.probability:.1e}", f"{each.parity.changed:.3%}")
        for each in exported.files
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    first = exported.files[0].parity
    seen = "prepared cases" if first.seen == "cases" else "noise, as no prepared cases lie beside the model"
    lines += [f"{each.name}: {each.int8.text()}" for each in exported.files if each.int8 is not None]
    lines += [
        f"Probabilities and labels were compared with the original's on {first.windows} windows of {seen}.",
        f"Written to {exported.folder}",
    ]
    return "\n".join(lines)
