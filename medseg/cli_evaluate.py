"""`medseg evaluate` and `medseg compare`: scores of masks against references, and of models against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg import cli_complete
from medseg.cli_help import ADVANCED
from medseg.cli_options import AsJson, Debug, listed

__all__ = ["COMPARE_EXAMPLES", "EVALUATE_EXAMPLES", "compare", "evaluate"]

EVALUATE_EXAMPLES = """\
medseg evaluate masks/ references/ -o report/
medseg evaluate masks/ references/ -o report/ --task lung --images studies/
medseg evaluate masks/ references/ -o report/ --metrics dice,hd95,cldice"""
COMPARE_EXAMPLES = """\
medseg compare report_unet/ report_deeplab/ -o comparison/
medseg compare unet=unet_0/,unet_1/ fcn=fcn_0/,fcn_1/ -o out/ --margin 0.01"""

Predictions = Annotated[
    Path, typer.Argument(metavar="PRED", readable=False, help="The predicted masks: a folder or one file.")
]
References = Annotated[
    Path, typer.Argument(metavar="REF", readable=False, help="The reference masks: a folder or one file.")
]
Out = Annotated[
    Path,
    typer.Option("-o", "--out", metavar="FOLDER", help="Folder for cases.csv, summary.json and report.html."),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="vessel, lung or tumor: adds the scores and measurements usual for it.",
        autocompletion=cli_complete.tasks,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels", metavar="FILE", help="YAML with the name and value of each label; a training config will do."
    ),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", metavar="FOLDER", help="The images, for overlays and measurements."),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="NAME,...",
        help="Names separated by commas, such as dice,hd95,cldice; an unknown name lists those there are.",
    ),
]
Cases = Annotated[
    Path | None,
    typer.Option(
        "--cases",
        metavar="FILE",
        help="CSV with the columns case, group (the patient, for confidence intervals) and annotated (liver;spleen: "
        "only these labels of the case are scored); further columns make subgroups.",
        rich_help_panel=ADVANCED,
    ),
]
Probabilities = Annotated[
    Path | None,
    typer.Option(
        "--probabilities",
        metavar="FOLDER",
        help="Probabilities as .npz (from predict --save-probabilities), NIfTI or PNG.",
        rich_help_panel=ADVANCED,
    ),
]
Fov = Annotated[
    Path | None,
    typer.Option(
        "--fov",
        metavar="FOLDER",
        help="Masks of the field of view: only what lies inside them is scored.",
        rich_help_panel=ADVANCED,
    ),
]
SecondReference = Annotated[
    Path | None,
    typer.Option(
        "--second-reference",
        metavar="FOLDER",
        help="Masks of a second observer, scored beside the model.",
        rich_help_panel=ADVANCED,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance-mm",
        metavar="MM",
        help="Tolerance of the normalized surface distance (NSD); by default the task's, else 2 mm.",
        rich_help_panel=ADVANCED,
    ),
]
Miou = Annotated[
    Literal["labels", "voc"],
    typer.Option(
        "--miou",
        metavar="labels|voc",
        help="voc adds the mean IoU of PASCAL VOC: with background, without reference voxels of value 255.",
        rich_help_panel=ADVANCED,
    ),
]
Surface = Annotated[
    Literal["voxel", "area"],
    typer.Option(
        "--surface",
        metavar="voxel|area",
        help="Weight of a surface element in distances: 1, or its area.",
        rich_help_panel=ADVANCED,
    ),
]
Hd95 = Annotated[
    Literal["max_directed", "pooled"],
    typer.Option(
        "--hd95",
        metavar="DEFINITION",
        help="max_directed (the larger of both directed percentiles) or pooled (the percentile over both directions).",
        rich_help_panel=ADVANCED,
    ),
]
Assd = Annotated[
    Literal["pooled", "mean"],
    typer.Option(
        "--assd",
        metavar="DEFINITION",
        help="pooled (the mean over both surfaces together) or mean (the mean of the two directed means).",
        rich_help_panel=ADVANCED,
    ),
]
Boundary = Annotated[
    float | None,
    typer.Option(
        "--boundary",
        metavar="WIDTH",
        help="Width of the band of boundary IoU, in mm (pixels where no spacing is known); by default 2% of the "
        "image's diagonal.",
        rich_help_panel=ADVANCED,
    ),
]
LesionIou = Annotated[
    float,
    typer.Option(
        "--lesion-iou",
        metavar="IOU",
        help="IoU from which two lesions match, for the lesion metrics.",
        rich_help_panel=ADVANCED,
    ),
]
BratsDilation = Annotated[
    int,
    typer.Option(
        "--brats-dilation",
        metavar="VOXELS",
        help="Voxels that reference lesions are dilated by before they are separated, for the BraTS metrics.",
        rich_help_panel=ADVANCED,
    ),
]
BratsMinMm3 = Annotated[
    float,
    typer.Option(
        "--brats-min-mm3",
        metavar="MM3",
        help="Reference lesions of this volume or less do not count, for the BraTS metrics.",
        rich_help_panel=ADVANCED,
    ),
]
LabelThreshold = Annotated[
    float | None,
    typer.Option(
        "--label-threshold",
        metavar="VALUE",
        help="For masks of 0 and 255 or with soft edges: values above it are the label.",
        rich_help_panel=ADVANCED,
    ),
]
ResamplePrediction = Annotated[
    bool,
    typer.Option(
        "--resample-prediction",
        help="Resample predictions that lie on another grid than their reference, instead of refusing them.",
        rich_help_panel=ADVANCED,
    ),
]
Missing = Annotated[
    Literal["refuse", "empty"],
    typer.Option(
        "--missing",
        metavar="refuse|empty",
        help="What to do about references without a prediction: refuse, or score an empty mask and exit with 4.",
        rich_help_panel=ADVANCED,
    ),
]
MemoryGb = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        metavar="GB",
        help="Memory for scoring cases in parallel; by default 60% of what is free.",
        rich_help_panel=ADVANCED,
    ),
]
View3d = Annotated[
    Path | None,
    typer.Option(
        "--view3d",
        metavar="FILE",
        help="dist/niivue.umd.js from the npm package @niivue/niivue: shows the worst case in 3D in the report.",
        rich_help_panel=ADVANCED,
    ),
]


def evaluate(
    predictions: Predictions,
    references: References,
    out: Out,
    task: Task = None,
    labels: Labels = None,
    images: Images = None,
    probabilities: Probabilities = None,
    fov: Fov = None,
    cases: Cases = None,
    second_reference: SecondReference = None,
    metrics: Metrics = None,
    tolerance_mm: Tolerance = None,
    miou: Miou = "labels",
    surface: Surface = "voxel",
    hd95: Hd95 = "max_directed",
    assd: Assd = "pooled",
    boundary: Boundary = None,
    lesion_iou: LesionIou = 0.1,
    brats_dilation: BratsDilation = 3,
    brats_min_mm3: BratsMinMm3 = 50.0,
    label_threshold: LabelThreshold = None,
    resample_prediction: ResamplePrediction = False,
    missing: Missing = "refuse",
    memory_gb: MemoryGb = None,
    view3d: View3d = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score masks against references: Dice, IoU, surface distances and more, with confidence intervals and a report."""
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
        metrics=listed(metrics),
        tolerance_mm=tolerance_mm,
        miou=miou,
        surface=surface,
        hd95=hd95,
        assd=assd,
        boundary=boundary,
        lesion_iou=lesion_iou,
        brats_dilation=brats_dilation,
        brats_min_mm3=brats_min_mm3,
        memory_gb=memory_gb,
        view3d=view3d,
    )
    with console_progress("evaluate", enabled=not as_json) as progress:
        result = run_evaluation(predictions, references, out=out, options=options, progress=progress)
    typer.echo(result.to_json() if as_json else result.text())
    result.raise_for_missing()


def compare(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_EVALUATION",
            help="Folders that evaluate wrote, or runs that contain one; two or more, against the same references. "
            "NAME=FOLDER,FOLDER,... are trainings of one model with different seeds.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for compare.csv, summary.json, report.html, table.tex and methods.txt.",
        ),
    ],
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", metavar="NAME,...", help="Names separated by commas; by default all that were evaluated."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="X",
            help="Test of non-inferiority: whether a model is worse than another by less than X, in the unit of the "
            "metric.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare models on the same cases: paired tests, intervals over patients and seeds, a ranking, non-inferiority."""
    from medseg.evaluation import compare as run_comparison
    from medseg.evaluation.stored_evaluation import by_model

    result = run_comparison(by_model(folders), out, listed(metrics), margin=margin)
    typer.echo(result.to_json() if as_json else result.text())
