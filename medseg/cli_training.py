"""The commands from a folder of data to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg import cli_complete
from medseg.cli_help import ADVANCED
from medseg.cli_options import Debug
from medseg.lookup import nearest

if TYPE_CHECKING:
    from medseg.config import RunConfig

__all__ = [
    "INIT_EXAMPLES",
    "PREPARE_EXAMPLES",
    "TRAIN_EXAMPLES",
    "config",
    "init",
    "prepare",
    "presets",
    "train",
]

INIT_EXAMPLES = """\
medseg init data/
medseg init data/ -o chest.yaml data.modality=CT"""
PREPARE_EXAMPLES = """\
medseg prepare data/
medseg prepare hippocampus data.root=/data/hippocampus
medseg prepare chest.yaml --show-augmentation samples.png"""
TRAIN_EXAMPLES = """\
medseg train data/ --minutes 20
medseg train hippocampus data.root=/data/hippocampus --hours 2
medseg train chest.yaml --fold 1 --resume"""

Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, a folder of data, or the name of a preset (medseg presets).",
        autocompletion=cli_complete.configs,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings, such as data.modality=CT; medseg config lists all.",
        autocompletion=cli_complete.settings,
    ),
]


def prepare(
    context: typer.Context,
    config: Config,
    overrides: Overrides = None,
    show_augmentation: Annotated[
        Path | None,
        typer.Option(
            "--show-augmentation",
            metavar="FILE",
            help="Also draw a PNG of some cases, and of samples as training would see them.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Check a data set, plan the training and store the prepared cases (train does it when needed)."""
    from medseg.training import prepare_run

    loaded = _load(context, config, overrides)
    if show_augmentation is None:
        typer.echo(prepare_run(loaded).text())
        return
    from medseg.commands.augmentation_sheet import check_sheet_path, write_augmentation_sheet

    check_sheet_path(show_augmentation)
    preparation = prepare_run(loaded)
    typer.echo(preparation.text())
    write_augmentation_sheet(loaded, preparation, show_augmentation)
    typer.echo(f"samples as training sees them: {show_augmentation}")


def train(
    context: typer.Context,
    config: Config,
    overrides: Overrides = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="MINUTES", help="How long to train; 60 by default.")
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", metavar="HOURS", help="The same, in hours.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    fold: Annotated[
        str | None,
        typer.Option(
            "--fold",
            metavar="NUMBER|all|full",
            help="The fold of the cross-validation to train; all: one after the other; full: on all cases. Default: 0.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a network; the run folder then contains the model bundle that predict takes."""
    from medseg.training import train_run

    run = train_run(_load(context, config, overrides, fold, minutes, hours), resume=resume)
    if run.rank:
        return  # Of several processes that train together, one prints.
    for number, scores in sorted(run.scores.items()):
        labels = ", ".join(f"{name} {value:.3f}" for name, value in scores.dice.items() if value is not None)
        typer.echo(f"fold {number}: validation Dice {scores.mean_dice:.3f} on {scores.cases} cases ({labels})")
    if not run.scores:
        typer.echo("trained on all cases: none is left to validate, so there are no scores")
    typer.echo(f"model: {run.bundle}")


def presets(debug: Debug = False) -> None:
    """List the configurations that come with medseg, for medseg train NAME data.root=FOLDER."""
    from medseg.config import packaged_presets

    lines = packaged_presets()
    width = max((len(name) for name in lines), default=0)
    for name, line in lines.items():
        typer.echo(f"{name.ljust(width)}  {line}")


def config(
    key: Annotated[
        str | None,
        typer.Argument(metavar="KEY", help="A key, or a part such as training.", autocompletion=cli_complete.keys),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the default, type and meaning of KEY; implied by KEY.")
    ] = False,
    debug: Debug = False,
) -> None:
    """List every key of a configuration with its default, or explain one."""
    from medseg.commands.config import explain_all, explain_key

    typer.echo(explain_all() if key is None else explain_key(key))


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", readable=False, help="A folder of images and label maps.")
    ],
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The YAML file; by default named after the folder."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    debug: Debug = False,
) -> None:
    """Write a commented configuration for a folder of data: cases, labels, split and training time."""
    import shlex

    from medseg.commands.init import write_config
    from medseg.config import parse_overrides

    path = out or Path(f"{folder.resolve().name or 'run'}.yaml")
    for line in write_config(folder, path, parse_overrides(overrides or []), overwrite):
        typer.echo(line)
    typer.echo(f"Wrote {path}; check it and name the labels, then: medseg train {shlex.quote(str(path))}")


def _load(
    context: typer.Context,
    config: str,
    overrides: list[str] | None,
    fold: str | None = None,
    minutes: float | None = None,
    hours: float | None = None,
) -> RunConfig:
    from medseg.config import parse_overrides
    from medseg.errors import ConfigError
    from medseg.preparation.folder import config_of

    _refuse_unknown_options(context, [config, *(overrides or [])])
    if "=" in config and not Path(config).exists():
        raise ConfigError(
            f"{config!r} is a setting; first give a YAML file, a folder of data or a preset, then settings"
        )
    values = parse_overrides(overrides or [])
    if fold is not None:
        if fold not in ("all", "full") and not (fold.isascii() and fold.isdigit()):
            raise ConfigError(f"--fold {fold!r}: give a number from 0, all, or full")
        values["training.fold"] = int(fold) if fold.isdigit() else fold
    times = {"--minutes": minutes, "--hours": hours, "training.max_minutes": values.get("training.max_minutes")}
    given = [name for name, value in times.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"the time to train is given twice, by {' and '.join(given)}; give one of them")
    if minutes is not None:
        values["training.max_minutes"] = minutes
    if hours is not None:
        values["training.max_minutes"] = hours * 60
    return config_of(config, values)


def _refuse_unknown_options(context: typer.Context, arguments: list[str]) -> None:

    from medseg.config import is_known, keys_meant, nearest_keys
    from medseg.errors import ConfigError

    given = next((each for each in arguments if each.startswith("-")), None)
    if given is None:
        return
    option = given.partition("=")[0]
    name = option.lstrip("-")
    options = [each for parameter in context.command.params for each in parameter.opts if each.startswith("--")]
    near = nearest(option, options, alike=0.75)
    keys = [name] if is_known(name) else keys_meant(name) or ([] if near else nearest_keys(name))
    if keys:
        hint = f"it is a setting, which is written without dashes: {' or '.join(f'{key}=VALUE' for key in keys)}"
    else:
        hint = f"did you mean {near[0]}?" if near else f"see medseg {context.info_name} --help"
    raise ConfigError(f"there is no option {option}; {hint}")
