"""`medseg predict`: a model and images in, masks out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg import cli_complete
from medseg.cli_help import ADVANCED
from medseg.cli_options import AllowCode, AsJson, Debug, Folds, Irregular, fold_numbers, listed
from medseg.output_formats import MASK_FORMATS

__all__ = ["EXAMPLES", "predict"]

EXAMPLES = """\
medseg predict runs/lung/model studies/ -o masks/
medseg predict runs/lung/model studies/ -o out/ --format dicom-seg,sr,capture
medseg predict runs/lung/model studies/ -o masks/ --engine ray
medseg predict totalsegmentator:total studies/ -o masks/ --roi liver,spleen"""

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        readable=False,
        help="A bundle (folder or zip) of train or import; a model folder of nnU-Net v2; or totalsegmentator:TASK.",
    ),
]
Sources = Annotated[
    list[Path],
    typer.Argument(metavar="SRC", readable=False, help="Image files, DICOM folders, folders of studies, or zips."),
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the masks and ledger.jsonl.")]
OutputFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help=f"{', '.join(MASK_FORMATS)}; several joined by commas; by default it follows the input.",
        autocompletion=cli_complete.mask_formats,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, or cuda:1 and so on.")]
Anonymize = Annotated[
    bool,
    typer.Option(
        "--anonymize",
        help="Remove the patient from DICOM outputs (PS3.15 Basic Profile), messages and the ledger.",
    ),
]
Timestamps = Annotated[
    bool,
    typer.Option("--timestamps", help="Date DICOM outputs now, not at the study's date.", rich_help_panel=ADVANCED),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would be done, and write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Also repeat cases that are done.")]
Preview = Annotated[
    bool, typer.Option("--preview/--no-preview", help="Write a small picture of every mask into previews/, or do not.")
]
Series = Annotated[
    list[str] | None,
    typer.Option(
        "--series",
        metavar="UID",
        help="The SeriesInstanceUID to use where a study has several series; may be repeated for further studies.",
        rich_help_panel=ADVANCED,
    ),
]
SaveProbabilities = Annotated[
    bool,
    typer.Option(
        "--save-probabilities", help="Also write the probabilities, as .npz in float16.", rich_help_panel=ADVANCED
    ),
]
Crf = Annotated[
    bool,
    typer.Option(
        "--crf",
        help="Sharpen the masks with a dense CRF; for a 3D model, only if it was trained with prediction.crf=fit.",
        rich_help_panel=ADVANCED,
    ),
]
Register = Annotated[
    bool,
    typer.Option(
        "--register", help="Align the channels rigidly and mark the case for review.", rich_help_panel=ADVANCED
    ),
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast", help="Use bfloat16 where the CPU supports it; a few voxels change.", rich_help_panel=ADVANCED
    ),
]
NetworkEngine = Annotated[
    str | None,
    typer.Option(
        "--network-engine",
        metavar="NAME",
        help="How the network is run: eager, winograd, frozen, onnxruntime, openvino, tensorrt, or with --fast bf16 or "
        "openvino-bf16; measured by default, where that pays.",
        rich_help_panel=ADVANCED,
    ),
]
EstimateQuality = Annotated[
    bool,
    typer.Option(
        "--estimate-quality",
        help="Also predict the Dice score of each label, and write a map of the uncertainty.",
        rich_help_panel=ADVANCED,
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        metavar="MINUTES",
        help="Give a case up as failed after this time; no limit by default.",
        rich_help_panel=ADVANCED,
    ),
]
Settle = Annotated[
    float | None,
    typer.Option(
        "--settle",
        metavar="SECONDS",
        help="Wait until nothing has been written to SRC for this long; 1 by default.",
        rich_help_panel=ADVANCED,
    ),
]
Roi = Annotated[
    str | None,
    typer.Option(
        "--roi",
        metavar="NAME,NAME",
        help="The labels that are wanted of a model made of parts; only parts that find them are run.",
        rich_help_panel=ADVANCED,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="DIR",
        help="For totalsegmentator:TASK: the folder of its weights; ~/.totalsegmentator/nnunet/results by default.",
        rich_help_panel=ADVANCED,
    ),
]
Compatible = Annotated[
    bool,
    typer.Option(
        "--compatible",
        help="For models of nnU-Net: repeat its half precision and mirroring, for proofs; slower.",
        rich_help_panel=ADVANCED,
    ),
]
Ensemble = Annotated[
    list[str] | None,
    typer.Option(
        "--ensemble",
        metavar="MODEL",
        help="A further model with the same labels; the probabilities of all are averaged. May be repeated.",
        rich_help_panel=ADVANCED,
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="Work on this machine, or on all machines of a Ray cluster; these must see the same paths.",
        rich_help_panel=ADVANCED,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="The head node of the Ray cluster; this machine by default.",
        rich_help_panel=ADVANCED,
    ),
]


def predict(
    model: Model,
    sources: Sources,
    out: Out,
    output_format: OutputFormat = None,
    series: Series = None,
    device: Device = "auto",
    save_probabilities: SaveProbabilities = False,
    crf: Crf = False,
    register: Register = False,
    anonymize: Anonymize = False,
    fast: Fast = False,
    network_engine: NetworkEngine = None,
    estimate_quality: EstimateQuality = False,
    time_limit: TimeLimit = None,
    settle: Settle = None,
    preview: Preview = True,
    timestamps: Timestamps = False,
    engine: Engine = "local",
    ray_address: RayAddress = None,
    allow_code: AllowCode = None,
    irregular: Irregular = "error",
    folds: Folds = None,
    roi: Roi = None,
    weights: Weights = None,
    compatible: Compatible = False,
    ensemble: Ensemble = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Segment images or studies with a trained model; masks lie on the patient's own grid.

    Cases that fail do not stop the others; ledger.jsonl names the reason. A second call does what is missing.
    """
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
        network_engine=network_engine,
        estimate_quality=estimate_quality,
        time_limit=time_limit,
        settle=settle,
        preview=preview,
        timestamps=timestamps,
        dry_run=dry_run,
        overwrite=overwrite,
        engine=engine,
        ray_address=ray_address,
        allow_code=tuple(allow_code or ()),
        irregular=irregular,
        folds=fold_numbers(folds),
        roi=tuple(listed(roi) or ()),
        weights=None if weights is None else str(weights),
        compatible=compatible,
        ensemble=tuple(ensemble or ()),
    )
    with console_progress("predict", enabled=not as_json) as progress:
        result = predict_studies(model, sources, out, options, progress=progress)
    typer.echo(result.to_json() if as_json else result.text())
    result.raise_for_failures()
