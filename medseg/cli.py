"""The `medseg` command: parses arguments and calls one function; `cli_exit` turns errors into a line and an exit code.

Nothing heavy is imported before a command runs, so that `medseg --help` is instant.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medseg import (
    cli_complete,
    cli_deploy,
    cli_loop,
    cli_pretrain,
    cli_service,
    cli_site,
    cli_training,
    cli_weak,
)
from medseg.cli_evaluate import COMPARE_EXAMPLES, EVALUATE_EXAMPLES, compare, evaluate
from medseg.cli_exit import ended_by_errors
from medseg.cli_help import ADVANCED, Command, Group
from medseg.cli_options import AsJson, Debug, Irregular
from medseg.cli_predict import EXAMPLES as PREDICT_EXAMPLES
from medseg.cli_predict import predict
from medseg.output_formats import OUTPUT_FORMATS
from medseg.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="medseg",
    cls=Group,
    help="Medical-image segmentation: labelled CT/MR volumes to a model, a model to masks, scores and a report.",
    epilog="""\
Help on a command: medseg COMMAND --help

Exit codes:
  0  everything went well
  1  internal error: a fault of medseg itself
  2  wrong usage or configuration
  3  bad input, nothing was done
  4  some cases failed
  5  bad model
  6  environment: disk full, no permission, or a missing part

Not a medical device.""",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"medseg {__version__}")
        raise typer.Exit


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the model, masks and report.")
    ] = Path("medseg_demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Use a small model that comes with medseg: half a minute, no training.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train on small synthetic chest CTs, segment a DICOM study, score it and write a report (about 3 minutes)."""
    from medseg.commands.demo import run_demo, run_quick_demo

    (run_quick_demo if quick else run_demo)(out, typer.echo)


def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Check this installation: processors, memory, disk, torch and its devices, image decoders, optional parts."""
    from medseg.commands.doctor import examine

    report = examine()
    typer.echo(report.to_json() if as_json else report.text())
    report.raise_for_problems()


def inspect(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", readable=False, help="An image file, a DICOM folder, a folder of studies, or a zip."
        ),
    ],
    irregular: Irregular = "error",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List every study, series and image file with its geometry, and what is wrong with it."""
    from medseg.commands.inspect import inspect as run_inspection
    from medseg.progress import console_progress

    with console_progress("inspect", enabled=not as_json) as progress:
        found = run_inspection(source, irregular, progress)
    typer.echo(found.to_json() if as_json else found.text(shutil.get_terminal_size((120, 40)).columns))
    found.raise_for_refusals()


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", readable=False, help="An image, study, SEG, RTSTRUCT, annotation file, or zip."),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A file for one volume, a folder for any number.")],
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"{', '.join(OUTPUT_FORMATS)}; by default the suffix of DST decides.",
            autocompletion=cli_complete.output_formats,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", metavar="FOLDER", help="The DICOM study that a label map, SEG or RTSTRUCT was drawn on."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="YAML with the name and value of each label.")
    ] = None,
    anonymize: Annotated[
        bool, typer.Option("--anonymize", help="Copy DICOM objects without the patient (PS3.15 Basic Profile).")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    series: Annotated[
        str | None,
        typer.Option(
            "--series",
            metavar="UID",
            help="The SeriesInstanceUID to use where SRC or the reference has several series.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Refuse a SEG or RTSTRUCT of which a segment or ROI cannot be read.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    timestamps: Annotated[
        bool,
        typer.Option(
            "--timestamps", help="Date SEG and RTSTRUCT now, not at the study's date.", rich_help_panel=ADVANCED
        ),
    ] = False,
    irregular: Irregular = "error",
    scribbles: Annotated[
        int | None,
        typer.Option(
            "--scribbles",
            metavar="PIXELS",
            help="Draw lines and points of annotations so wide; what is not drawn becomes 255, for data.ignore.",
        ),
    ] = None,
    copy_grid: Annotated[
        Path | None,
        typer.Option(
            "--copy-grid",
            metavar="IMAGE",
            help="Give SRC the affine of this image of the same shape; for masks saved without theirs.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Convert DICOM to NIfTI, label maps to SEG or RTSTRUCT, annotations to label maps, and all of these back."""
    from medseg.commands.convert import ConvertOptions
    from medseg.commands.convert import convert as run_conversion
    from medseg.progress import console_progress

    options = ConvertOptions(
        output_format,
        series,
        irregular,
        reference,
        labels,
        anonymize,
        overwrite,
        copy_grid=copy_grid,
        strict=strict,
        timestamps=timestamps,
        scribbles=scribbles,
    )
    with console_progress("convert") as progress:
        done = run_conversion(source, target, options, progress)
    typer.echo(done.text())
    done.raise_for_failures()


def nets(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="The networks to list; all without a name.", autocompletion=cli_complete.nets
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="The backbone of networks that have a choice; 'all' lists each; by default the network's own.",
        ),
    ] = None,
    width: Annotated[
        float, typer.Option("--width", metavar="FACTOR", help="Multiplies the number of channels of every layer.")
    ] = 1.0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List every network: parameters, GFLOPs, receptive field, stride and memory."""
    from medseg.nets.profile import profile_nets
    from medseg.progress import console_progress

    with console_progress("nets", enabled=not as_json) as progress:
        table = profile_nets(names=names or None, backbone=backbone, width=width, progress=progress)
    typer.echo(table.to_json() if as_json else table.text())


def _add(
    command: Callable[..., None], group: str, examples: str, lenient: bool = False, name: str | None = None
) -> None:
    # With `lenient`, unknown options come as arguments, so that a setting written as an option is recognised as one.
    settings = {"ignore_unknown_options": lenient}
    app.command(name, cls=Command, rich_help_panel=group, epilog=examples, context_settings=settings)(command)


_add(demo, "First steps", "medseg demo --quick\nmedseg demo --out demo_out")
_add(doctor, "First steps", "medseg doctor\nmedseg doctor --json")
_add(inspect, "Data", "medseg inspect study/\nmedseg inspect study/ --json")
_add(
    convert,
    "Data",
    """\
medseg convert study/ study.nii.gz
medseg convert lung.nii.gz lung.dcm --reference study/ --labels labels.yaml
medseg convert task.xml masks/
medseg convert scribbles/ masks/ --scribbles 3
medseg convert study/ shared/ --anonymize""",
)
_add(cli_training.init, "Training", cli_training.INIT_EXAMPLES)
_add(cli_training.train, "Training", cli_training.TRAIN_EXAMPLES, lenient=True)
_add(cli_training.prepare, "Training", cli_training.PREPARE_EXAMPLES, lenient=True)
_add(cli_pretrain.pretrain, "Training", cli_pretrain.PRETRAIN_EXAMPLES)
_add(cli_weak.pseudo_label, "Training", cli_weak.PSEUDO_LABEL_EXAMPLES, name="pseudo-label")
_add(cli_loop.suggest, "Training", cli_loop.SUGGEST_EXAMPLES)
_add(cli_loop.correct, "Training", cli_loop.CORRECT_EXAMPLES)
_add(cli_training.presets, "Training", "medseg presets")
_add(cli_training.config, "Training", "medseg config\nmedseg config --explain training.max_minutes")
_add(nets, "Training", "medseg nets\nmedseg nets deeplabv3plus --backbone all --width 0.5")
_add(predict, "Masks and scores", PREDICT_EXAMPLES)
_add(cli_deploy.import_model, "Masks and scores", cli_deploy.IMPORT_EXAMPLES, name="import")
_add(cli_deploy.export, "Masks and scores", cli_deploy.EXPORT_EXAMPLES)
_add(evaluate, "Masks and scores", EVALUATE_EXAMPLES)
_add(compare, "Masks and scores", COMPARE_EXAMPLES)
_add(cli_deploy.benchmark, "Masks and scores", cli_deploy.BENCHMARK_EXAMPLES)
_add(cli_service.serve, "At a site", cli_service.SERVE_EXAMPLES)
_add(cli_service.queue, "At a site", cli_service.QUEUE_EXAMPLES)
_add(cli_site.accept, "At a site", cli_site.ACCEPT_EXAMPLES)
_add(cli_site.drift, "At a site", cli_site.DRIFT_EXAMPLES)


def _log_to_console(debug: bool) -> None:
    """Our own log on standard error; what libraries warn of only with --debug, as it names neither file nor remedy."""
    console = logging.StreamHandler(sys.stderr)
    # A program that calls us with handlers of its own keeps them as they are.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[console])
    logging.captureWarnings(True)
    if not debug:
        # Worker processes start anew and know only the environment.
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        console.addFilter(logging.Filter("medseg"))
        logging.getLogger("nibabel.global").disabled = True  # it writes to the console by a handler of its own


def main() -> None:
    """Entry point of the console script."""
    # Waiting threads spin for a moment, then sleep: endless spinning slows down other programs on the machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names need not be valid text; JSON reads these escapes back.
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    _log_to_console(debug)
    logging.getLogger("medseg").setLevel(logging.DEBUG if debug else logging.INFO)
    # Under its name also as python -m medseg, for usage lines and shell completion.
    ended_by_errors(partial(app, prog_name="medseg"), debug)
