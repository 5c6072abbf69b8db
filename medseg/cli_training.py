"""The commands from a folder of data to a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli_options import Debug

if TYPE_CHECKING:
    from medseg.config import RunConfig

__all__ = ["add_training_commands"]

Config = Annotated[
    str,
    typer.Argument(metavar="CONFIG", help="A YAML file, a folder of data, or the name of a preset (medseg presets)."),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, e.g. data.modality=CT")
]


def prepare(config: Config, overrides: Overrides = None, debug: Debug = False) -> None:
    """Check a data set, take its fingerprint, plan, and store the prepared cases (train does it when needed)."""
    from medseg.training import prepare_run

    typer.echo(prepare_run(_load(config, overrides)).text())


def train(
    config: Config,
    overrides: Overrides = None,
    fold: Annotated[str | None, typer.Option("--fold", help="Fold number, or 'all'.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    debug: Debug = False,
) -> None:
    """Train a network; ends with a model bundle in the run folder."""
    from medseg.training import train_run

    run = train_run(_load(config, overrides, fold), resume=resume)
    for number, scores in sorted(run.scores.items()):
        labels = ", ".join(f"{name} {value:.3f}" for name, value in scores.dice.items() if value is not None)
        typer.echo(f"fold {number}: validation Dice {scores.mean_dice:.3f} on {scores.cases} cases ({labels})")
    typer.echo(f"model: {run.bundle}")


def add_training_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.command(epilog="Examples: medseg prepare data/   medseg prepare hippocampus data.root=/data/hippocampus")(
        prepare
    )
    app.command(
        epilog="Examples: medseg train data/   medseg train configs/hippocampus.yaml data.root=/data/hippocampus "
        "training.max_minutes=20"
    )(train)


def _load(config: str, overrides: list[str] | None, fold: str | None = None) -> RunConfig:
    from medseg.config import parse_overrides
    from medseg.errors import ConfigError
    from medseg.preparation.folder import config_of

    values = parse_overrides(overrides or [])
    if fold is not None:
        if fold != "all" and not fold.isdigit():
            raise ConfigError(f"--fold {fold!r}: give a number from 0, or all")
        values["training.fold"] = fold if fold == "all" else int(fold)
    return config_of(config, values)
