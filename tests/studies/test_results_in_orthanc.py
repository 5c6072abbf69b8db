"""What predict writes is stored in a PACS (Orthanc) and comes back as it was, in the study of its images."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from selection_studies import STUDY, write_series

from medseg.studies import PredictOptions, predict_studies

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[str]:
    """Address of the REST interface of an empty Orthanc that only this machine reaches."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("Orthanc is not installed (Debian: apt-get install orthanc)")
    web = _free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "orthanc"),
        "HttpBindAddresses": ["127.0.0.1"],
        "HttpPort": web,
        # It would listen on all interfaces.
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "Plugins": [],
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with (tmp_path / "orthanc.log").open("w") as log:
        process = subprocess.Popen([program, tmp_path / "orthanc.json"], stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{web}/system", timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail((tmp_path / "orthanc.log").read_text()[-2000:])
        yield f"http://127.0.0.1:{web}"
    finally:
        process.terminate()
        process.wait(30)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def test_every_object_comes_back_as_it_was_in_the_study_of_its_images(threshold_bundle, orthanc, tmp_path):
    array = np.full((12, 10, 9), -100, np.int16)
    array[4:8, 3:6, 4:6] = 100
    write_series(tmp_path / "in", 1, spacing=2.0, array=array).rename(tmp_path / "in" / "p")
    options = PredictOptions(format="dicom-seg,rtstruct,sr,capture")
    predict_studies(threshold_bundle(value=4), [tmp_path / "in"], tmp_path / "out", options).raise_for_failures()
    files = [*(tmp_path / "in" / "p").iterdir(), *(tmp_path / "out").glob("*.dcm")]
    for path in files:
        urllib.request.urlopen(f"{orthanc}/instances", path.read_bytes(), timeout=30)
    back, names = {}, {}
    for name in json.loads(_get(f"{orthanc}/instances")):
        data = pydicom.dcmread(io.BytesIO(_get(f"{orthanc}/instances/{name}/file")))
        back[data.SOPInstanceUID], names[data.SOPInstanceUID] = data, name
    assert len(back) == len(files) == 13
    for path in files:
        sent = pydicom.dcmread(path)
        assert back[sent.SOPInstanceUID] == sent, path.name
        assert back[sent.SOPInstanceUID].file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    (study,) = json.loads(_get(f"{orthanc}/studies?expand"))
    assert study["MainDicomTags"]["StudyInstanceUID"] == STUDY
    series = [json.loads(_get(f"{orthanc}/series/{name}"))["MainDicomTags"] for name in study["Series"]]
    assert sorted(each["Modality"] for each in series) == ["CT", "OT", "RTSTRUCT", "SEG", "SR"]
    made = [each["SeriesDescription"] for each in series if each["Modality"] != "CT"]
    assert all(text.startswith("RESEARCH: ") for text in made)
    # The PACS makes a picture of the capture, and the report still has its numbers.
    capture = next(data for data in back.values() if data.Modality == "OT")
    assert _get(f"{orthanc}/instances/{names[capture.SOPInstanceUID]}/preview")[:4] == b"\x89PNG"
    report = next(data for data in back.values() if data.Modality == "SR")
    (group,) = hd.sr.ComprehensiveSR.from_dataset(report).content.get_volumetric_roi_measurement_groups()
    assert {m.name.meaning: m.value for m in group.get_measurements()}["Volume"] == 4 * 3 * 2 * 2.0
