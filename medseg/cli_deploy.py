"""The commands `import`, `export` and `benchmark`: models of other programs and for other runtimes, and their costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.cli_help import ADVANCED
from medseg.cli_options import AllowCode, Debug, Folds, fold_numbers, listed

__all__ = ["BENCHMARK_EXAMPLES", "EXPORT_EXAMPLES", "IMPORT_EXAMPLES", "benchmark", "export", "import_model"]

IMPORT_EXAMPLES = """\
medseg import Dataset007_Pancreas/nnUNetTrainer__nnUNetPlans__2d pancreas
medseg import deepbet brain
medseg import deepbet-1.0.2-py3-none-any.whl brain"""

EXPORT_EXAMPLES = """\
medseg export runs/lung/model lung_onnx --format onnx
medseg export runs/lung/model lung_openvino --format openvino --folds 0,2
medseg export runs/lung/model lung_int8.zip --format openvino --int8
medseg export pancreas nnUNetTrainer__nnUNetPlans__3d_fullres --format nnunet"""

BENCHMARK_EXAMPLES = """\
medseg benchmark runs/lung/model --data data/ -o bench
medseg benchmark runs/a runs/b --data images/ -o bench --engines eager,bf16"""


def import_model(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A model folder of nnU-Net v2 or a zip of it; deepbet (the installed package, or its wheel).",
            show_default=False,
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder for the model bundle.")],
    debug: Debug = False,
) -> None:
    """Write a model of another program as a bundle, which predict takes; nothing of it is run."""
    from medseg.inference.importing.importer import import_model as write_bundle

    typer.echo(f"wrote {write_bundle(source, target)}")


def export(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", readable=False, help="A model bundle: the folder or zip that train wrote."),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="Folder for the exported model, or a name that ends in .zip.")
    ],
    output_format: Annotated[
        Literal["onnx", "openvino", "nnunet"],
        typer.Option(
            "--format",
            metavar="onnx|openvino|nnunet",
            help="The runtime that will run it, ONNX Runtime or OpenVINO; or nnU-Net, for models imported from it.",
        ),
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="In 8-bit integers: a quarter of the size, two or more times as fast.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FOLDER",
            readable=False,
            help="For --int8: images to measure on; by default the prepared cases of the model's own run.",
        ),
    ] = None,
    max_loss: Annotated[
        float,
        typer.Option(
            "--max-loss", metavar="DICE", help="For --int8: Dice that may be lost; layers that cost more are left out."
        ),
    ] = 0.005,
    folds: Folds = None,
    allow_code: AllowCode = None,
    debug: Debug = False,
) -> None:
    """Write a trained model as ONNX or OpenVINO, which run without torch; predict takes it like the original.

    Each network is compared with the original before it is kept. With --format nnunet DST becomes a model folder of
    nnU-Net v2, for nnUNetv2_predict_from_modelfolder.
    """
    if output_format == "nnunet":
        from medseg.errors import ConfigError
        from medseg.inference.exporting.nnunet import export_nnunet

        if int8 or calibration is not None:
            raise ConfigError("nnU-Net runs networks in float32; leave --int8 and --calibration out")
        typer.echo(f"wrote {export_nnunet(model, target, fold_numbers(folds))}")
        return
    from medseg.commands.export import export_text, int8_options
    from medseg.inference.exporting.model import export_model
    from medseg.progress import console_progress

    with console_progress("export") as progress:
        done = export_model(
            model,
            target,
            output_format,
            fold_numbers(folds),
            tuple(allow_code or ()),
            progress,
            int8_options(int8, calibration, max_loss),
        )
    typer.echo(export_text(done))


def benchmark(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL", help="Bundles (folder or zip) or run folders; exported ones, too.")
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="FOLDER", help="Images, alone or with label maps as training reads them.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="A new folder for benchmark.json, benchmark.md and pareto.png."
        ),
    ],
    references: Annotated[
        Path | None,
        typer.Option("--references", metavar="FOLDER", help="Label maps of the same names as the images of --data."),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    cases: Annotated[
        int | None,
        typer.Option("--cases", metavar="N", min=1, help="The first N cases by name; all without it."),
    ] = None,
    engines: Annotated[
        str | None,
        typer.Option(
            "--engines", metavar="NAMES", help="Engines, joined by commas; all that this machine has without it."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="Threads of the processor; all processors without it."),
    ] = None,
    label_threshold: Annotated[
        float | None,
        typer.Option(
            "--label-threshold",
            metavar="VALUE",
            help="For label maps of 0 and 255, or with soft edges: what is above it is label 1.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure models on this machine, by every engine that it has: seconds, memory, file size and Dice."""
    from medseg.commands.benchmark import BenchmarkOptions, run_benchmark
    from medseg.progress import console_progress

    names = listed(engines)
    options = BenchmarkOptions(
        references, device, cases, None if names is None else tuple(names), threads, label_threshold
    )
    with console_progress("benchmark") as progress:
        text = run_benchmark(models, data, out, options, progress)
    typer.echo(text)
