"""The whole service with a real archive: studies are pushed to it, killed in the middle, and results come back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE
from service_fixtures import Service, free_port

from medseg.service.queue import Queue

pytestmark = pytest.mark.slow

# Four kinds: shape, spacing and direction of the slices.
KINDS = [
    ((24, 20, 10), np.diag([0.5, 0.75, 2.0, 1.0])),
    ((16, 32, 24), np.diag([1.0, 1.0, 1.5, 1.0])),
    ((20, 20, 12), np.array([[0, 0, 2.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])),
    ((32, 16, 40), np.diag([0.8, 0.8, 5.0, 1.0])),
]
STUDIES = int(os.environ.get("MEDSEG_ORTHANC_STUDIES", "12"))


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """DICOM and HTTP port of an Orthanc of this machine."""
    program = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("Orthanc is not installed (Debian: orthanc, orthanc-dicomweb)")
    dicom, http = free_port(), free_port()
    plugins = [str(each) for each in Path("/usr/share/orthanc/plugins").glob("*DicomWeb*")]
    config = {
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "DicomAet": "ORTHANC",
        "DicomPort": dicom,
        "HttpPort": http,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": plugins,
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    with (tmp_path / "orthanc.log").open("w") as log:
        process = subprocess.Popen([program, tmp_path / "orthanc.json"], stdout=log, stderr=log)
    try:
        for _ in range(120):
            try:
                ask(http, "system")
                break
            except OSError:
                time.sleep(0.5)
        yield dicom, http
    finally:
        process.terminate()
        process.wait()


def ask(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
        return json.load(answer)


def serve(service: Service) -> subprocess.Popen[bytes]:
    with (service.path.parent / "serve.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "medseg", "serve", str(service.path)],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the network of the test's model
        )


def push(port: int, study: list[pydicom.Dataset]) -> None:
    """Send a study, and send again what was not acknowledged, as an archive does."""
    waiting = list(study)
    for _ in range(300):
        node = AE(ae_title="PACS")
        node.add_requested_context(study[0].SOPClassUID)
        link = node.associate("127.0.0.1", port, ae_title="MEDSEG")
        if link.is_established:
            waiting = [
                each for each in waiting if not link.is_established or link.send_c_store(each).get("Status") != 0
            ]
            link.release()
            if not waiting:
                return
        time.sleep(0.5)
    raise AssertionError("the service does not take studies")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_studies_pushed_to_a_service_that_is_killed_all_come_back_under_the_right_patient(
    service: Service,
    write_series: Callable[..., list[Path]],
    orthanc: tuple[int, int],
    tmp_path: Path,
) -> None:
    dicom, http = orthanc
    port = free_port()
    (rule,) = service.site.model_dump(mode="json")["rules"]
    service.change(
        watch=None,
        quiet_s=2,
        receive={"calling": ["PACS"], "port": port},
        destinations={
            "pacs": {"host": "127.0.0.1", "port": dicom, "ae_title": "ORTHANC"},
            "web": {"url": f"http://127.0.0.1:{http}/dicom-web"},
        },
        rules=[{**rule, "match": {"calling_ae": "PACS"}, "send_to": ["pacs", "web"]}],
    )
    sent: dict[str, tuple[str, str]] = {}
    rng = np.random.default_rng(0)
    process = serve(service)
    try:
        for n in range(STUDIES):
            shape, affine = KINDS[n % len(KINDS)]
            uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
            patient = f"p{n // 2}"
            files = write_series(
                tmp_path / f"s{n}", rng.integers(0, 9, shape).astype(np.int16), affine, PatientID=patient, **uids
            )
            sent[uids["StudyInstanceUID"]] = (patient, uids["SeriesInstanceUID"])
            push(port, [pydicom.dcmread(path) for path in files])
            if n == STUDIES // 2:
                os.kill(process.pid, signal.SIGKILL)  # its children notice and end
                process.wait()
                process = serve(service)
        deadline = time.monotonic() + 60 + 10 * STUDIES
        while time.monotonic() < deadline and process.poll() is None:
            states = [each.state for each in Queue(service.places.queue).deliveries()]
            if len(states) == 2 * STUDIES and set(states) == {"sent"}:
                break
            time.sleep(1)
        assert len(states) == 2 * STUDIES and set(states) == {"sent"}, (service.path.parent / "serve.log").read_text()
    finally:
        process.terminate()
        assert process.wait(90) == 0
    arrived = {}
    for each in ask(http, "series?expand"):
        tags, above = each["MainDicomTags"], ask(http, f"studies/{each['ParentStudy']}")
        assert tags["Modality"] == "SEG" and len(each["Instances"]) == 1
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/instances/{each['Instances'][0]}/file") as answer:
            (tmp_path / "back.dcm").write_bytes(answer.read())
        mask = pydicom.dcmread(tmp_path / "back.dcm")
        assert mask.SeriesDescription.startswith("RESEARCH")
        study = above["MainDicomTags"]["StudyInstanceUID"]
        assert study not in arrived
        arrived[study] = (mask.PatientID, mask.ReferencedSeriesSequence[0].SeriesInstanceUID)
    assert arrived == sent
    jobs = Queue(service.places.queue).jobs()
    done = {line["job"] for line in service.audit() if line["hop"] == "done"}
    assert {job.id for job in jobs if job.state == "done"} == done and len(done) == STUDIES
