"""Archives of this machine that are asked by C-FIND and C-GET or by QIDO-RS and WADO-RS; made of datasets in memory."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from service_fixtures import free_port

_FIND, _GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
_KEYS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


class Archive:
    """What an archive has, and what it was asked for."""

    def __init__(self) -> None:
        self.objects: list[Dataset] = []
        self.fetched: list[str] = []
        self.asked: list[str] = []
        self.broken: set[str] = set()  # objects that are listed and do not come
        self.is_counting = True
        self.is_failing = False

    def put(self, folder: Path, *names: str) -> None:
        """Add the objects of a folder, or some of them."""
        self.objects += [pydicom.dcmread(path) for path in sorted(folder.iterdir()) if not names or path.name in names]

    def answers(self, level: str, **keys: str) -> list[Dataset]:
        """An answer for each study, series or image with these UIDs."""
        key = _KEYS[level]
        found: dict[str, Dataset] = {}
        for each in self.matching(**keys):
            if each[key].value in found:
                continue
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            for keyword in (*_KEYS.values(), "PatientID", "SOPClassUID", "Modality"):
                setattr(answer, keyword, each.get(keyword, ""))
            if level == "STUDY" and self.is_counting:
                answer.NumberOfStudyRelatedInstances = len(self.matching(StudyInstanceUID=each.StudyInstanceUID))
            found[each[key].value] = answer
        return list(found.values())

    def matching(self, **keys: str) -> list[Dataset]:
        """The objects with these UIDs."""
        return [each for each in self.objects if all(str(each[key].value) == value for key, value in keys.items())]


def _uids(asked: Dataset) -> dict[str, str]:
    return {key: str(asked[key].value) for key in _KEYS.values() if asked.get(key)}


@contextmanager
def dicom_archive(archive: Archive) -> Iterator[dict[str, Any]]:
    """A node of the archive; its entry of `pull` in a site file."""

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        archive.asked.append(f"{asked.QueryRetrieveLevel} {asked.get('StudyDate', '')}".strip())
        if archive.is_failing:
            yield 0xA700, None
            return
        for each in archive.answers(asked.QueryRetrieveLevel, **_uids(asked)):
            yield 0xFF00, each

    def get(event: Any) -> Iterator[Any]:
        found = archive.matching(**_uids(event.identifier))
        yield len(found)
        for each in found:
            if each.SOPInstanceUID in archive.broken:
                yield 0xA701, None
                continue
            archive.fetched.append(str(each.SOPInstanceUID))
            yield 0xFF00, each

    node = AE(ae_title="ARCHIVE")
    node.require_called_aet = True
    for each in (_FIND, _GET):
        node.add_supported_context(each)
    for each in (CTImageStorage, SEG):
        node.add_supported_context(
            each, [ExplicitVRLittleEndian, ImplicitVRLittleEndian], scu_role=False, scp_role=True
        )
    port = free_port()
    server = node.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get)]
    )
    try:
        yield {"host": "127.0.0.1", "port": port, "ae_title": "ARCHIVE"}
    finally:
        server.shutdown()


@contextmanager
def web_archive(archive: Archive) -> Iterator[dict[str, Any]]:
    """A DICOMweb service of the archive; its entry of `pull` in a site file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            steps, asked = parts.path.strip("/").split("/")[1:], parse_qs(parts.query)
            keys = dict(zip(_KEYS.values(), steps[1::2], strict=False))
            if archive.is_failing:
                self._answer(503, "text/plain", b"busy")
            elif steps[-1] in ("studies", "series", "instances"):
                archive.asked.append(f"{steps[-1].upper()} {asked.get('StudyDate', [''])[0]}".strip())
                level = {"studies": "STUDY", "series": "SERIES", "instances": "IMAGE"}[steps[-1]]
                start = int(asked.get("offset", ["0"])[0])
                page = archive.answers(level, **keys)[start : start + int(asked["limit"][0])]
                self._answer(200, "application/dicom+json", json.dumps([each.to_json_dict() for each in page]).encode())
            else:
                (data,) = archive.matching(**keys)
                if data.SOPInstanceUID in archive.broken:
                    self._answer(500, "text/plain", b"broken")
                    return
                archive.fetched.append(str(data.SOPInstanceUID))
                file = io.BytesIO()
                data.save_as(file, enforce_file_format=True)
                head = b"--part\r\nContent-Type: application/dicom\r\n\r\n"
                body = head + file.getvalue() + b"\r\n--part--\r\n"
                self._answer(200, 'multipart/related; type="application/dicom"; boundary=part', body)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {"url": f"http://127.0.0.1:{server.server_port}/dicom-web"}
        finally:
            server.shutdown()
            thread.join()
