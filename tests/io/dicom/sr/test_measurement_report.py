"""Measurement reports (DICOM SR, TID 1500): what other programs read from them, and what they refer to."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from seg_cases import MODEL, SHAPE, a_label_map, grid_in, volume_on

import medseg
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.seg.write import segmentation_of, write_dicom_seg
from medseg.io.dicom.sr.write import write_measurement_report
from medseg.labels import LabelScheme
from medseg.studies.measurements import Measurement, measure
from medseg.volume import Metadata, Volume

SCHEME = LabelScheme.from_mapping({"left_lung": 1, "right lung nodule": 7, "Ödem": 300, "left nodule": 9})
TAGS = {"Modality": "CT", "StudyDate": "20240229", "StudyTime": "101112", "StudyID": "S1", "AccessionNumber": "A1"}


@pytest.fixture
def grid(tmp_path):
    return grid_in(tmp_path / "study", tags=TAGS)


def written(path, grid, measured, algorithm=MODEL, **more):
    """The report's groups as highdicom reads them, and the data set."""
    write_measurement_report(measured, path, grid, algorithm, **more)
    report = hd.sr.srread(path)
    return list(report.content.get_image_measurement_groups()) if "segmentation" not in more else list(
        report.content.get_volumetric_roi_measurement_groups()
    ), report


def numbers(group):
    """(name, derivation) -> (value, unit) of a group."""
    return {
        (m.name.meaning, m.derivation.meaning if m.derivation else ""): (m.value, m.unit.value)
        for m in group.get_measurements()
    }


def evaluations(group):
    found = {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()}
    # highdicom counts it among them.
    return {name: value for name, value in found.items() if name != "Finding category"}


def a_measurement(label="left_lung", **values):
    given = {"voxels": 12, "volume_ml": 0.0335, "components": 1, "long_axis_mm": 7.5, "short_axis_mm": 4.25}
    return Measurement(label, **{**given, "mean": -812.5, "sd": 90.25, "unit": "HU", **values})


def test_the_numbers_are_those_counted_by_hand(tmp_path):
    """10 x 4 x 2 voxels of 2 x 2 x 5 mm: 1600 mm3, in a CT of 10 HU in one slice and 30 HU in the other."""
    grid = grid_in(tmp_path / "study", shape=(20, 16, 6), spacing=(2.0, 2.0, 5.0), tags=TAGS)
    mask = np.zeros((20, 16, 6), np.uint8)
    mask[5:15, 8:12, 1:3] = 1
    values = np.full(mask.shape, -1000.0, np.float32)
    values[:, :, 1], values[:, :, 2] = 10.0, 30.0
    image = Volume(values, grid.affine, metadata=Metadata(modality="CT"))
    measured = measure(volume_on(grid, mask), LabelScheme.from_mapping({"liver": 1}), image)
    (group,), _ = written(tmp_path / "a.sr.dcm", grid, measured)
    found = numbers(group)
    assert found.pop(("Volume", "")) == (80 * 2 * 2 * 5, "mm3")
    assert found.pop(("Attenuation Coefficient", "Mean")) == (20.0, "[hnsf'U]")
    assert found.pop(("Attenuation Coefficient", "Standard Deviation")) == (10.0, "[hnsf'U]")
    # The outline's corners are the middles of voxel edges: 20 mm along i at 6 mm along j, or the other way round.
    long = float(np.hypot(20.0, 6.0))
    assert found.pop(("Long axis", "")) == (round(long, 4), "mm")
    # At a right angle to it, between two edges that are 8 mm apart and 20 mm long.
    assert found.pop(("Short axis", "")) == (round(8.0 * long / 20.0, 4), "mm")
    assert found == {}


def test_every_value_comes_back_as_it_was_measured(grid, tmp_path):
    (group,), _ = written(tmp_path / "a.sr.dcm", grid, [a_measurement()])
    assert numbers(group) == {
        ("Volume", ""): (33.5, "mm3"),
        ("Long axis", ""): (7.5, "mm"),
        ("Short axis", ""): (4.25, "mm"),
        ("Attenuation Coefficient", "Mean"): (-812.5, "[hnsf'U]"),
        ("Attenuation Coefficient", "Standard Deviation"): (90.25, "[hnsf'U]"),
    }
    assert {m.method.meaning for m in group.get_measurements(codes.SCT.Volume)} == {
        "Sum of segmented voxel method for volume"
    }


def test_grey_values_have_the_unit_of_their_modality_or_are_left_out(tmp_path):
    grey = {}
    for modality in ("MR", "PT"):
        grid = grid_in(tmp_path / modality, tags={**TAGS, "Modality": modality})
        (group,), _ = written(tmp_path / f"{modality}.sr.dcm", grid, [a_measurement(unit="", mean=5.0, sd=2.0)])
        grey[modality] = {key: value for key, value in numbers(group).items() if key[1]}
    assert grey == {"MR": {("MR signal intensity", "Mean"): (5.0, "1"),
                           ("MR signal intensity", "Standard Deviation"): (2.0, "1")}, "PT": {}}  # fmt: skip


def test_a_label_that_was_not_found_is_reported_as_absent_and_nothing_is_made_up(grid, tmp_path):
    absent = a_measurement(
        voxels=0, volume_ml=0.0, components=0, long_axis_mm=None, short_axis_mm=None, mean=None, sd=None
    )
    unknown = replace(absent, volume_ml=None)
    groups, _ = written(tmp_path / "a.sr.dcm", grid, [absent, unknown, a_measurement()])
    assert [numbers(group) for group in groups[:2]] == [{("Volume", ""): (0.0, "mm3")}, {}]
    assert [evaluations(group)["Presence"] for group in groups] == ["Absent", "Absent", "Present"]


def test_finding_side_and_site_are_coded_and_an_unknown_name_stays_readable(grid, tmp_path):
    groups, _ = written(tmp_path / "a.sr.dcm", grid, [a_measurement(name) for name in SCHEME.names])
    found = []
    for group in groups:
        sites = [(s.value.meaning, s.laterality.meaning if s.laterality else "") for s in group.finding_sites]
        found.append((group.tracking_identifier, group.finding_category.meaning, group.finding_type.meaning, sites))
    assert found == [
        ("left_lung", "Anatomical Structure", "Lung", [("Lung", "Left")]),
        ("right lung nodule", "Morphologically Abnormal Structure", "Nodule", [("Lung", "Right")]),
        ("Ödem", "Tissue", "Tissue", []),
        ("left nodule", "Morphologically Abnormal Structure", "Nodule", [("Body structure", "Left")]),
    ]


def test_groups_refer_to_the_segments_with_their_codes_and_tracking_uids(grid, tmp_path):
    labels = volume_on(grid, a_label_map())
    image = medseg.read(tmp_path / "study")
    segmentation = segmentation_of(labels, tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    write_dicom_seg(labels, tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    groups, report = written(tmp_path / "a.sr.dcm", grid, measure(labels, SCHEME, image), segmentation=segmentation)
    stored = pydicom.dcmread(tmp_path / "seg.dcm")
    assert len(groups) == len(stored.SegmentSequence) == 4
    for group, segment in zip(groups, stored.SegmentSequence, strict=True):
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == stored.SOPInstanceUID
        assert list(reference.referenced_segment_numbers) == [segment.SegmentNumber]
        assert (group.tracking_uid, group.tracking_identifier) == (segment.TrackingUID, segment.SegmentLabel)
        assert group.finding_type.value == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
        assert group.finding_category.value == segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue
    evidence = {instance for _, _, instance, _ in report.get_evidence()}
    assert evidence == {s.sop_instance_uid for s in grid.slices} | {stored.SOPInstanceUID}
    assert {series for _, series in report.get_evidence_series()} == {
        grid.slices[0].series_instance_uid,
        stored.SeriesInstanceUID,
    }


def test_without_a_segmentation_it_refers_to_the_images(grid, tmp_path):
    (group,), report = written(tmp_path / "a.sr.dcm", grid, [a_measurement()])
    sources = [image.referenced_sop_instance_uid for image in group.source_images]
    assert sources == [s.sop_instance_uid for s in grid.slices]
    assert len(report.get_evidence()) == SHAPE[2]


def test_the_report_belongs_to_its_study_and_is_marked_as_unverified_research(grid, tmp_path):
    doubtful = replace(MODEL, review=True, mark="RESEARCH")
    (group,), report = written(tmp_path / "a.sr.dcm", grid, [a_measurement()], doubtful)
    source = pydicom.dcmread(grid.slices[0].path)
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert report[keyword].value == source[keyword].value, keyword
    assert (report.Modality, report.ContentDate, report.ContentTime) == ("SR", "20240229", "101112")
    assert report.SeriesDescription == "RESEARCH, NEEDS REVIEW: measurements by lung net"
    assert (report.VerificationFlag, report.PreliminaryFlag, report.CompletionFlag) == (
        *("UNVERIFIED", "PRELIMINARY", "COMPLETE"),
    )
    assert report.SeriesInstanceUID != source.SeriesInstanceUID
    assert evaluations(group) == {"Presence": "Present", "Review by a person": "Needs review"}
    named = {item.name.meaning: item.value for item in group[0].ContentSequence if item.value_type.value == "TEXT"}
    assert named["Algorithm Name"] == "lung net"
    assert named["Algorithm Version"] == "1.2"
    texts = [item.value for item in group[0].ContentSequence if item.name.meaning == "Algorithm Parameters"]
    assert texts == [f"model_hash={MODEL.model_hash}", "options=tta=yes", "research use, not for diagnosis"]
    (fine,), _ = written(tmp_path / "b.sr.dcm", grid, [a_measurement()])
    assert "Review by a person" not in evaluations(fine)


def test_the_same_inputs_give_the_same_bytes_and_any_other_another_object(grid, tmp_path):
    segmentation = segmentation_of(volume_on(grid, a_label_map()), tmp_path, SCHEME, grid, MODEL)
    first = [a_measurement()]
    cases = [
        (first, MODEL, None),
        (first, replace(MODEL, model_hash="77"), None),
        (first, replace(MODEL, review=True), None),
        (first, replace(MODEL, mark="TRIAL"), None),
        (first, replace(MODEL, made=datetime(2026, 11, 30, 16, 5, 9)), None),
        ([a_measurement(mean=-812.6)], MODEL, None),
        (first, MODEL, segmentation),
    ]
    seen = set()
    for n, (measured, algorithm, reference) in enumerate(cases):
        for name in ("once", "twice"):
            write_measurement_report(measured, tmp_path / name, grid, algorithm, segmentation=reference)
        assert (tmp_path / "once").read_bytes() == (tmp_path / "twice").read_bytes(), n
        data = pydicom.dcmread(tmp_path / "once")
        seen |= {data.SOPInstanceUID, data.SeriesInstanceUID}
    assert len(seen) == 2 * len(cases)


def test_a_deidentified_report_keeps_its_content_and_points_at_the_deidentified_images(grid, tmp_path):
    labels, key = volume_on(grid, a_label_map()), "a secret"
    segmentation = segmentation_of(labels, tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    measured = [a_measurement(name) for name in SCHEME.names]
    algorithm = replace(MODEL, review=True, mark="RESEARCH")
    deidentifier = Deidentifier.with_key(key)
    plain, _ = written(tmp_path / "plain.sr.dcm", grid, measured, algorithm, segmentation=segmentation)
    findings = write_measurement_report(
        measured, tmp_path / "a.sr.dcm", grid, algorithm, segmentation=segmentation, deidentifier=deidentifier
    )
    write_dicom_seg(labels, tmp_path / "seg.dcm", SCHEME, grid, MODEL, deidentifier=deidentifier)
    assert findings == ()
    report, stored = hd.sr.srread(tmp_path / "a.sr.dcm"), pydicom.dcmread(tmp_path / "seg.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [numbers(group) for group in groups] == [numbers(group) for group in plain]
    assert [evaluations(group) for group in groups] == [evaluations(group) for group in plain]
    assert groups[0].referenced_segment.referenced_sop_instance_uid == stored.SOPInstanceUID
    assert [group.tracking_uid for group in groups] == [segment.TrackingUID for segment in stored.SegmentSequence]
    assert report.SeriesDescription.startswith("RESEARCH")
    assert [code.CodeValue for code in report.DeidentificationMethodCodeSequence] == ["113100", "113104", "113105"]
    raw, source = (tmp_path / "a.sr.dcm").read_bytes(), pydicom.dcmread(grid.slices[0].path)
    secrets = [source.PatientName, source.PatientID, "A1", *{s.sop_instance_uid for s in grid.slices}]
    secrets += [source.StudyInstanceUID, source.SeriesInstanceUID, segmentation.SOPInstanceUID]
    assert [text for text in map(str, secrets) if text.encode() in raw] == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("kind", ["segments", "images", "review", "one slice"])
def test_dciodvfy_has_nothing_to_say_but_that_it_does_not_know_our_code_for_a_review(tmp_path, kind):
    """The conformance checker of David Clunie's dicom3tools."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    shape = (9, 7, 1) if kind == "one slice" else SHAPE
    grid = grid_in(tmp_path / "study", shape=shape, tags=TAGS)
    labels = volume_on(grid, a_label_map()[:, :, 2] if kind == "one slice" else a_label_map())
    reference = None if kind == "images" else segmentation_of(labels, Path("seg.dcm"), SCHEME, grid, MODEL)
    measured = measure(labels, SCHEME, medseg.read(tmp_path / "study"))
    algorithm = replace(MODEL, review=kind == "review", mark="RESEARCH")
    write_measurement_report(measured, tmp_path / "a.sr.dcm", grid, algorithm, segmentation=reference)
    said = subprocess.run([program, tmp_path / "a.sr.dcm"], capture_output=True, text=True, check=False)
    ours = "Warning - Unrecognized defined term <99MEDSEG> for value 1 of attribute <Coding Scheme Designator>"
    lines = [line for line in (said.stdout + said.stderr).splitlines() if line.strip() != "ComprehensiveSR"]
    assert [line for line in lines if line != ours] == []
    assert (ours in lines) == (kind == "review")
