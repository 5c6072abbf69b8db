"""The command from weak annotations to label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg import cli_complete
from medseg.cli_options import Debug

__all__ = ["PSEUDO_LABEL_EXAMPLES", "pseudo_label"]

PSEUDO_LABEL_EXAMPLES = """\
medseg pseudo-label chest.yaml -o labels/ --minutes 20
medseg pseudo-label data/ --boxes boxes.csv data.labels='{tumour: 1}'"""


def pseudo_label(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file, a folder of data, or the name of a preset (medseg presets).",
            autocompletion=cli_complete.configs,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings, such as weak.map_threshold=0.3; medseg config weak lists them.",
            autocompletion=cli_complete.settings,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the label maps.")] = Path(
        "labels"
    ),
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            metavar="FILE",
            readable=False,
            help="Boxes around labels, a CSV or annotations, in place of image-level labels.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="MINUTES", help="How long the classifier trains; 60 by default."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace label maps that are there.")] = False,
    debug: Debug = False,
) -> None:
    """Make label maps from image-level labels or boxes, for medseg train."""
    from medseg.config import parse_overrides
    from medseg.training.weak.folder import weak_config_of
    from medseg.training.weak.pseudo_labels import make_pseudo_labels

    values = parse_overrides(overrides or [])
    if boxes is not None:
        values["weak.boxes"] = str(boxes)
    if minutes is not None:
        values["weak.classifier_minutes"] = minutes
    typer.echo(make_pseudo_labels(weak_config_of(config, values), out, overwrite).text())
