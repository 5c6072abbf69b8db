"""The examples in the docstrings run as they are written, and what they show is true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import medseg
from medseg.evaluation import evaluate
from medseg.inference import BundleInfo, NetInfo, PredictionInfo, Provenance, save_bundle
from medseg.io.annotations import Annotated, write_annotations
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.io.dicom.series import find_series
from medseg.labels import LabelScheme
from medseg.phantoms import samples_folder
from medseg.preparation.case_features import measure_case
from medseg.preparation.plan import ChannelPlan, Plan
from medseg.preparation.training_range import learn_range
from medseg.studies import run
from medseg.volume import Volume

PACKAGE = Path(medseg.__file__).parent
MODULES = {
    ".".join(["medseg", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# What an example may use without importing it, beside what its own module imports.
NAMES = {"Path": Path, "medseg": medseg, "np": np, "torch": torch}
LABELS = {"lung": 1, "tumour": 2}
# Examples that are only read: a training of minutes, and what needs its model or the reader's own package.
MOST_SKIPPED = 3
FACES = [
    *("medseg", "medseg.nets", "medseg.losses", "medseg.metrics", "medseg.augmentation", "medseg.inference"),
    *("medseg.evaluation", "medseg.io"),
]


@pytest.fixture(scope="session")
def files_of_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that examples name, made from the synthetic samples."""
    root, samples = tmp_path_factory.mktemp("examples"), samples_folder()
    for name in ("chest", "study"):
        shutil.copytree(samples / name, root / name)
    shutil.copy(samples / "chest" / "images" / "phantom_01.nii.gz", root / "ct.nii.gz")
    shutil.copytree(samples / "study_reference", root / "references")
    reference = medseg.read(root / "references" / "study.nii.gz")
    medseg.write(reference.with_array(np.roll(reference.array, 1, axis=0)), root / "masks" / "study.nii.gz")
    _save_model(root)
    _write_objects(root)
    evaluate(root / "masks", root / "references", labels=LABELS, out=root / "report_unet")
    evaluate(root / "references", root / "references", labels=LABELS, out=root / "report_deeplab")
    return root


def _save_model(root: Path) -> None:
    """An untrained U-Net that knows how five of the sample cases look, and one for pictures."""
    torch.manual_seed(0)
    plan = Plan(
        dims=3,
        orientation="RAS",
        spacing_mm=(5.0, 5.0, 6.0),
        patch_size=(32, 32, 32),
        batch_size=2,
        in_channels=1,
        normalization=(ChannelPlan(kind="clip", low=-1000, high=1000, mean=0.0, std=1000.0),),
        channels=(4, 8),
        strides=((1, 1, 1), (2, 2, 2)),
    )
    options = {"channels": plan.channels, "strides": plan.strides}
    scheme = LabelScheme.from_mapping(LABELS)
    names = [path.name for path in sorted((root / "chest" / "images").iterdir())[:5]]
    cases = [[medseg.read(root / "chest" / kind / name) for kind in ("images", "labels")] for name in names]
    info = BundleInfo(
        labels=LABELS,
        plan=plan,
        net=NetInfo(name="unet", dims=3, in_channels=1, out_channels=3, options=options),
        prediction=PredictionInfo(overlap=0.25),
        provenance=Provenance(medseg=medseg.__version__),
        reference_ranges=learn_range([measure_case(image, mask, scheme) for image, mask in cases]),
    )
    save_bundle(root / "runs" / "lung" / "model", info, {0: info.net.build().state_dict()})
    pictures = {"dims": 2, "orientation": None, "spacing_mm": None, "patch_size": (32, 32), "strides": ((1, 1), (2, 2))}
    flat = BundleInfo(
        labels={"vessel": 1},
        plan=Plan(**plan.model_dump(include={"batch_size", "in_channels", "normalization", "channels"}), **pictures),
        net=NetInfo(name="unet", dims=2, in_channels=1, out_channels=2, options={"channels": plan.channels}),
        provenance=Provenance(medseg=medseg.__version__),
    )
    save_bundle(root / "runs" / "vessel" / "model", flat, {0: flat.net.build().state_dict()})


def _write_objects(root: Path) -> None:
    """The reference of the study as DICOM objects, and a square drawn on a picture."""
    mask, scheme = medseg.read(root / "references" / "study.nii.gz"), LabelScheme.from_mapping(LABELS)
    grid, algorithm = grid_of(find_series(root / "study")[0]), Algorithm("lung", "1.0", "9f2c")
    write_dicom_seg(mask, root / "lung_seg.dcm", scheme, grid, algorithm)
    write_rtstruct(mask, root / "lung_rtstruct.dcm", scheme, grid, algorithm)
    square = np.zeros((6, 4), np.uint8)
    square[1:3, 1:3] = 1
    drawn = Annotated(Volume(square, np.eye(4), spacing_known=False), {"lung": 1}, "scan.png")
    write_annotations(drawn, root / "scan.json", "labelme")


@pytest.fixture
def working_folder(files_of_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module finds the files as they were made, whatever the examples of others did."""
    # Links, as copies of all files for each module would take longer than the examples.
    shutil.copytree(files_of_examples, tmp_path / "here", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "here")
    # They have just been written, and are whole.
    monkeypatch.setattr(run, "SETTLE_SECONDS", 0.0)


def examples_of(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder().find(module, extraglobs=NAMES | vars(module))
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("working_folder")
def test_the_examples_of_a_module_are_true(name: str) -> None:
    failed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in examples_of(name):
        runner.run(test, out=failed.append)
    assert not failed, "".join(failed)


def test_every_example_in_the_source_is_run() -> None:
    for name, path in MODULES.items():
        written = path.read_text(encoding="utf-8").count(">>> ")
        assert sum(len(test.examples) for test in examples_of(name)) == written, name


def test_few_examples_are_only_read() -> None:
    skipped = [
        test.name
        for name in MODULES
        for test in examples_of(name)
        if any(doctest.SKIP in example.options for example in test.examples)
    ]
    assert len(skipped) <= MOST_SKIPPED, skipped


@pytest.mark.parametrize("face", FACES)
def test_every_public_function_and_class_shows_how_it_is_used(face: str) -> None:
    module = importlib.import_module(face)
    members = {name: getattr(module, name) for name in module.__all__}
    callables = {name: each for name, each in members.items() if inspect.isclass(each) or inspect.isfunction(each)}
    assert callables
    assert [name for name, each in callables.items() if ">>> " not in (each.__doc__ or "")] == []
