"""What `medseg export` says at its end."""

from __future__ import annotations

from medseg.inference.export import Exported

__all__ = ["export_text"]


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
    lines += [
        f"Probabilities and labels were compared with the original's on {first.windows} windows of {seen}.",
        f"Written to {exported.folder}",
    ]
    return "\n".join(lines)
