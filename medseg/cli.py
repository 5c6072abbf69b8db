"""The `medseg` command: parses arguments and calls one function; `cli_exit` turns errors into a line and an exit code.

Nothing heavy is imported before a command runs, so that `medseg --help` is instant.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.cli_exit import ended_by_errors
from medseg.cli_options import AsJson, Debug, Irregular
from medseg.cli_training import add_training_commands
from medseg.output_formats import MASK_FORMATS, OUTPUT_FORMATS
from medseg.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="medseg",
    help="Medical-image segmentation: labelled CT/MR volumes to a model, a model to masks, scores and a report.",
    epilog="Exit codes: 0 all well; 1 a fault of medseg itself; 2 usage or config; 3 bad input, nothing done; 4 some "
    "cases failed; 5 bad model; 6 disk full, no permission or a missing part. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"medseg {__version__}")
        raise typer.Exit


@app.command(epilog="Example: medseg demo --out demo_out")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for model, masks and report.")] = Path("medseg_demo"),
    debug: Debug = False,
) -> None:
    """Train on small synthetic chest CTs, segment a DICOM study, score it and write a report (about 3 minutes)."""
    from medseg.commands.demo import run_demo

    run_demo(out, typer.echo)


@app.command(epilog="Example: medseg inspect study/ --json")
def inspect(
    source: Annotated[Path, typer.Argument(metavar="SRC", readable=False, help="A file, DICOM folder, studies, zip.")],
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


@app.command(
    epilog="Examples: medseg convert study/ study.nii.gz   medseg convert lung.nii.gz lung.dcm --reference study/ "
    "--labels labels.yaml   medseg convert task.xml masks/   medseg convert study/ shared/ --anonymize"
)
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", readable=False, help="Image, study, SEG, RTSTRUCT, annotation, zip.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A file for one volume, a folder for any number.")],
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"{', '.join(OUTPUT_FORMATS)}; default: what DST's suffix says.",
        ),
    ] = None,
    series: Annotated[
        str | None, typer.Option("--series", help="SeriesInstanceUID, where SRC or the reference has several.")
    ] = None,
    irregular: Irregular = "error",
    reference: Annotated[
        Path | None, typer.Option("--reference", help="DICOM study that a label map, SEG or RTSTRUCT was drawn on.")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="YAML with name: value of the label map.")] = None,
    anonymize: Annotated[
        bool, typer.Option("--anonymize", help="Copy DICOM objects without the patient (PS3.15 Basic Profile).")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    debug: Debug = False,
) -> None:
    """DICOM to NIfTI and back, label maps to SEG and RTSTRUCT and back, annotations to label maps and back."""
    from medseg.commands.convert import ConvertOptions
    from medseg.commands.convert import convert as run_conversion
    from medseg.progress import console_progress

    options = ConvertOptions(output_format, series, irregular, reference, labels, anonymize, overwrite)
    with console_progress("convert") as progress:
        done = run_conversion(source, target, options, progress)
    typer.echo(done.text())
    done.raise_for_failures()


add_training_commands(app)


@app.command(
    epilog="Examples: medseg predict runs/lung/model studies/ -o masks/   medseg predict runs/lung/model studies/ "
    "-o masks/ --engine ray --ray-address head:6379"
)
def predict(
    model: Annotated[Path, typer.Argument(readable=False, help="A model bundle: folder or zip.")],
    sources: Annotated[
        list[Path], typer.Argument(metavar="SRC...", readable=False, help="Files, DICOM folders, studies, zips.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the masks and ledger.jsonl.")],
    output_format: Annotated[
        str | None, typer.Option("--format", help=f"{', '.join(MASK_FORMATS)}; default follows the input.")
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option("--series", help="SeriesInstanceUID, where a study has several; repeat it for further studies."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    save_probabilities: Annotated[bool, typer.Option("--save-probabilities", help="Also write float16 .npz.")] = False,
    crf: Annotated[bool, typer.Option("--crf", help="Sharpen masks by a dense CRF (3D: where fitted).")] = False,
    register: Annotated[bool, typer.Option("--register", help="Register channels rigidly; flags for review.")] = False,
    anonymize: Annotated[
        bool,
        typer.Option(
            "--anonymize",
            help="Remove the patient from DICOM outputs (PS3.15 Basic Profile), messages and the ledger; see README.",
        ),
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="bfloat16 where the CPU has it; a few voxels differ.")] = False,
    estimate_quality: Annotated[
        bool, typer.Option("--estimate-quality", help="Predicted Dice of each label and a map of uncertainty.")
    ] = False,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Minutes before a case is given up as failed.")
    ] = None,
    settle: Annotated[
        float | None,
        typer.Option("--settle", help="Wait until SRC was not written to for so many seconds; default: 1."),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview/--no-preview", help="A small picture of every mask in previews/.")
    ] = True,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option("--engine", help="local, or ray: workers on the machines of a Ray cluster, same paths on each."),
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="HOST:PORT of the cluster's head; default: this machine.")
    ] = None,
    allow_code: Annotated[
        list[str] | None,
        typer.Option("--allow-code", metavar="MODULE", help="Module that may run as the model's net; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be done.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also redo what is done.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Segment files or studies; every mask lies on the patient's own grid, every failure is named in the ledger."""
    from medseg.progress import console_progress
    from medseg.studies import PredictOptions, predict_studies

    options = PredictOptions(
        format=output_format,
        series=tuple(series) if series else None,
        device=device,
        save_probabilities=save_probabilities,
        anonymize=anonymize,
        crf=crf,
        register=register,
        fast=fast,
        estimate_quality=estimate_quality,
        time_limit=time_limit,
        settle=settle,
        preview=preview,
        dry_run=dry_run,
        overwrite=overwrite,
        engine=engine,
        ray_address=ray_address,
        allow_code=tuple(allow_code or ()),
    )
    with console_progress("predict", enabled=not as_json) as progress:
        result = predict_studies(model, sources, out, options, progress=progress)
    typer.echo(result.to_json() if as_json else result.text())
    result.raise_for_failures()


@app.command(
    epilog="Examples: medseg evaluate masks/ references/ -o report/ --images images/   medseg evaluate masks/ "
    "references/ -o report/ --task vessel --probabilities masks/ --fov fov/ --cases patients.csv"
)
def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PRED", readable=False, help="Predicted masks: folder or file.")
    ],
    references: Annotated[Path, typer.Argument(metavar="REF", readable=False, help="Reference masks: folder or file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for cases.csv, summary.json and report.html.")],
    task: Annotated[
        str | None, typer.Option("--task", help="vessel, lung or tumor: its scores, measures, tables and baseline.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="YAML with name: value (or the training config).")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of images, for the overlays and for tasks to measure in.")
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option("--probabilities", help="Folder of .npz (predict --save-probabilities), NIfTI, PNG.")
    ] = None,
    fov: Annotated[Path | None, typer.Option("--fov", help="Folder of masks of the pixels that count.")] = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", help="CSV: case, group (the patient, for intervals), further columns for subgroups."),
    ] = None,
    second_reference: Annotated[
        Path | None, typer.Option("--second-reference", help="Another observer's masks, scored beside the model.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Names with commas, e.g. dice,hd95,cldice; a wrong one lists all.")
    ] = None,
    tolerance_mm: Annotated[float | None, typer.Option("--tolerance-mm", help="Of NSD; 2, or the task's.")] = None,
    surface: Annotated[
        Literal["voxel", "area"], typer.Option("--surface", help="Weight of surface elements: each 1, or their area.")
    ] = "voxel",
    hd95: Annotated[
        Literal["max_directed", "pooled"], typer.Option("--hd95", help="Which 95th percentile HD95 is.")
    ] = "max_directed",
    assd: Annotated[
        Literal["pooled", "mean"], typer.Option("--assd", help="Mean over both surfaces, or of the two means.")
    ] = "pooled",
    label_threshold: Annotated[
        float | None, typer.Option("--label-threshold", help="0/255 or soft-edged masks: above it is the label.")
    ] = None,
    resample_prediction: Annotated[
        bool, typer.Option("--resample-prediction", help="Bring masks to the reference's grid.")
    ] = False,
    missing: Annotated[
        Literal["refuse", "empty"],
        typer.Option("--missing", help="References without a mask: refuse, or score an empty one and exit with 4."),
    ] = "refuse",
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="For cases side by side; default: 60% of what is free.")
    ] = None,
    view3d: Annotated[
        Path | None,
        typer.Option("--view3d", help="dist/niivue.umd.js of the npm package @niivue/niivue: the worst case in 3D."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score masks against references: Dice, IoU, HD95, ASSD, NSD and more with intervals, and a report to look at."""
    from medseg.evaluation import EvaluateOptions
    from medseg.evaluation import evaluate as run_evaluation
    from medseg.progress import console_progress

    options = EvaluateOptions(
        task=task,
        labels=labels,
        images=images,
        cases=cases,
        fov=fov,
        probabilities=probabilities,
        second_reference=second_reference,
        missing=missing,
        resample_prediction=resample_prediction,
        label_threshold=label_threshold,
        metrics=[m.strip() for m in metrics.split(",") if m.strip()] if metrics is not None else None,
        tolerance_mm=tolerance_mm,
        surface=surface,
        hd95=hd95,
        assd=assd,
        memory_gb=memory_gb,
        view3d=view3d,
    )
    with console_progress("evaluate", enabled=not as_json) as progress:
        result = run_evaluation(predictions, references, out=out, options=options, progress=progress)
    typer.echo(result.to_json() if as_json else result.text())
    result.raise_for_missing()


@app.command(
    epilog="Example: medseg compare report_unet/ report_deeplab/ -o comparison/   (folders that evaluate -o wrote, "
    "against the same references)"
)
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_OR_EVALUATION...", help="Evaluations, or runs that hold one; two or more."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for compare.csv, summary.json and report.html.")],
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Names with commas; default: all that were evaluated.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare models on the same cases: paired tests with Holm's correction, ranking and its stability, a picture."""
    from medseg.evaluation import compare as run_comparison

    names = [m.strip() for m in metrics.split(",") if m.strip()] if metrics is not None else None
    result = run_comparison(folders, out, names)
    typer.echo(result.to_json() if as_json else result.text())


@app.command(epilog="Example: medseg nets deeplabv3plus --backbone all --width 0.5")
def nets(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which nets; all without.")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="For nets with a choice; 'all' lists each; default: their own.")
    ] = None,
    width: Annotated[float, typer.Option("--width", help="Multiplies the features.")] = 1.0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List every network: parameters, GFLOPs, receptive field, stride and memory."""
    from medseg.nets.profile import profile_nets
    from medseg.progress import console_progress

    with console_progress("nets", enabled=not as_json) as progress:
        table = profile_nets(names=names or None, backbone=backbone, width=width, progress=progress)
    typer.echo(table.to_json() if as_json else table.text())


def main() -> None:
    """Entry point of the console script."""
    # Waiting threads spin for a moment, then sleep: endless spinning stalls a machine that others use too.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may be no text; JSON reads these escapes back.
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    debug = "--debug" in sys.argv
    logging.getLogger("medseg").setLevel(logging.DEBUG if debug else logging.INFO)
    ended_by_errors(app, debug)
