"""What `predict` and `convert` write: names, suffixes and needs are those of one table."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medseg.cli import app
from medseg.commands.convert import ConvertOptions
from medseg.errors import ConfigError
from medseg.io import annotations
from medseg.output_formats import MASK_FORMATS, OUTPUT_FORMATS, file_names, format_of_name, several_formats
from medseg.studies import PredictOptions


def test_the_names_that_predict_and_convert_take() -> None:
    assert list(MASK_FORMATS) == ["nifti", "png", "dicom-seg", "rtstruct", "sr", "capture"]
    assert list(OUTPUT_FORMATS) == [
        *("nifti", "nrrd", "mha", "png", "tiff", "dicom", "dicom-seg", "rtstruct"),
        *("labelme", "cvat", "supervisely", "coco"),
    ]
    for name in MASK_FORMATS:
        assert PredictOptions(format=name).format == name
    for name in OUTPUT_FORMATS:
        assert ConvertOptions(format=name).format == name


@pytest.mark.parametrize(("made", "options"), [(MASK_FORMATS, PredictOptions), (OUTPUT_FORMATS, ConvertOptions)])
@pytest.mark.parametrize(("wrong", "meant"), [("nifty", "nifti"), ("dicomseg", "dicom-seg"), ("PNG", "png")])
def test_an_unknown_format_is_refused_with_all_names_and_the_nearest(made, options, wrong, meant):  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as refused:
        options(format=wrong)
    names = ", ".join(made)
    assert str(refused.value) == f"format {wrong!r} is not known; choose one of {names}; did you mean {meant!r}?"


@pytest.mark.parametrize(("command", "made"), [("predict", MASK_FORMATS), ("convert", OUTPUT_FORMATS)])
def test_the_help_lists_every_format(command, made):  # type: ignore[no-untyped-def]
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"}).output
    assert ", ".join(made) in " ".join(shown.split())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "nifti"),
        ("a.nii", "nifti"),
        ("A.b.NII.GZ", "nifti"),
        ("a.nrrd", "nrrd"),
        ("a.mha", "mha"),
        ("a.b.png", "png"),
        ("a.tif", "tiff"),
        ("a.TIFF", "tiff"),
        ("a.dcm", "dicom-seg"),
        ("a.json", "labelme"),
        ("a.xml", "cvat"),
        ("a.gz", None),
        (".nii.gz", None),
        ("a.jpeg", None),
        ("a", None),
    ],
)
def test_the_format_that_a_target_name_asks_for(name: str, expected: str | None) -> None:
    found = format_of_name(Path(name))
    assert (found.name if found else None) == expected


def test_what_each_format_holds_and_needs() -> None:
    assert [f.name for f in OUTPUT_FORMATS.values() if f.needs_series] == ["dicom-seg", "rtstruct"]
    kept = [f.name for f in OUTPUT_FORMATS.values() if not f.holds_labels_only]
    assert kept == ["nifti", "nrrd", "mha", "png", "tiff", "dicom"]
    assert tuple(f.name for f in OUTPUT_FORMATS.values() if f.content == "annotations") == annotations.FORMATS
    assert {f.name: f.suffix for f in MASK_FORMATS.values()} == {
        "nifti": ".nii.gz",
        "png": ".png",
        "dicom-seg": ".dcm",
        "rtstruct": ".dcm",
        "sr": ".sr.dcm",
        "capture": ".capture.dcm",
    }


def test_several_formats_are_joined_by_commas_in_any_order_and_each_once() -> None:
    assert several_formats("sr, dicom-seg,sr") == ("dicom-seg", "sr")
    assert several_formats(None) == ()
    assert PredictOptions(format="capture,sr,dicom-seg").format == "dicom-seg,sr,capture"
    for wrong in ("dicom-seg,", "", "dicom-seg,dicomsr", "nifti;png"):
        with pytest.raises(ConfigError, match="is not known; choose one of"):
            PredictOptions(format=wrong)


def test_several_dicom_objects_of_a_case_have_names_that_say_what_they_are() -> None:
    assert file_names("a", ["dicom-seg"]) == {"dicom-seg": "a.dcm"}
    assert file_names("a", ["nifti", "rtstruct"]) == {"nifti": "a.nii.gz", "rtstruct": "a.dcm"}
    assert file_names("a", ["sr"]) == {"sr": "a.sr.dcm"}
    assert list(file_names("a", list(MASK_FORMATS)).values()) == [
        *("a.nii.gz", "a.png", "a.seg.dcm", "a.rtstruct.dcm", "a.sr.dcm", "a.capture.dcm")
    ]
