"""The command from a folder of images without labels to weights that a training starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg import cli_complete
from medseg.cli_options import Debug

__all__ = ["PRETRAIN_EXAMPLES", "pretrain"]

PRETRAIN_EXAMPLES = """\
medseg pretrain images/ -o encoder/ --minutes 20
medseg pretrain images/ -o encoder/ --config hippocampus
medseg pretrain images/ -o encoder/ net.name=nnunet_resenc"""


def pretrain(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", readable=False, help="A folder of images; labels are not needed.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings, such as net.name=nnunet_resenc; medseg config lists all.",
            autocompletion=cli_complete.settings,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the weights, for training.init.")
    ] = Path("encoder"),
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="CONFIG",
            help="The configuration or preset that the weights are for, whose network and patch they then fit.",
            autocompletion=cli_complete.configs,
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="MINUTES", help="How long to train; 60 by default.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a network without labels, on restoring hidden parts of images, for training.init."""
    from medseg.config import config_from_values, load_config, parse_overrides
    from medseg.training.pretraining.run import pretrain as run

    values = parse_overrides(overrides or [])
    values["data.root"] = str(folder)
    if minutes is not None:
        values["training.max_minutes"] = minutes
    if config is None:
        loaded = config_from_values({"data": {}}, values, "medseg pretrain", "pretrain")
    else:
        loaded = load_config(config, values)
    made = run(loaded, out)
    typer.echo(f"{made.iterations} iterations; hidden voxels are restored with a mean squared error of {made.loss:.3f}")
    typer.echo(f"weights: train with training.init={made.folder}")
