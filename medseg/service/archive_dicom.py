"""Fetching from a DICOM archive: C-FIND of the study root, and C-GET over the same kind of connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)

from medseg.config.site_network import DicomSource
from medseg.service.archive import MOST_STUDIES, Found, FoundSeries, dates, is_wanted
from medseg.service.bounded import bound, clear_unfinished, receive_into_files
from medseg.service.dicom_link import UNCOMPRESSED, RefusedError, associated, check_status
from medseg.service.spool import Spool

__all__ = ["DicomArchive"]

# Study Root Query/Retrieve Information Model (PS3.4, C.6.2.1).
_FIND, _GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
_PENDING = (0xFF00, 0xFF01)
_USUAL = (
    *(CTImageStorage, EnhancedCTImageStorage, MRImageStorage, EnhancedMRImageStorage),
    *(PositronEmissionTomographyImageStorage, EnhancedPETImageStorage),
)
# A context each: the archive takes the one in which it has the object.
_COMPRESSED = (JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless, JPEGBaseline8Bit)
_MOST_CLASSES = 20
# Of an association (PS3.8, 9.3.2), without that of C-GET itself.
_MOST_CONTEXTS = 127


class DicomArchive:
    """An `Archive` that is asked by C-FIND.

    Args:
        config: its address, and what is asked for.
        spool: says whether the disk has space for more.
        today: the day; tests give their own.
    """

    def __init__(self, config: DicomSource, spool: Spool, today: Callable[[], date] = date.today) -> None:
        receive_into_files()
        self._config = config
        self._spool = spool
        self._today = today
        self.calling_ae: str = config.ae_title

    def open(self) -> AbstractContextManager[None]:
        """See `Archive.open`; each query and retrieval has a connection of its own, as archives close idle ones."""
        return nullcontext()

    def studies(self) -> Iterator[Found]:
        """See `Archive.studies`."""
        seen: set[str] = set()
        for modality in self._config.modalities or ("",):
            asked = _identifier("STUDY", StudyInstanceUID="", PatientID="", NumberOfStudyRelatedInstances="")
            asked.StudyDate, asked.ModalitiesInStudy = dates(self._config.days, self._today()), modality
            for each in self._find([asked])[0]:
                uid = str(each.get("StudyInstanceUID", ""))
                if uid and uid not in seen:
                    seen.add(uid)
                    yield Found(uid, str(each.get("PatientID") or ""), _count(each))

    def series(self, study_uid: str) -> list[FoundSeries]:
        """See `Archive.series`."""
        asked = _identifier("SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID="", Modality="")
        wanted = {
            str(each.SeriesInstanceUID): str(each.get("Modality") or "")
            for each in self._find([asked])[0]
            if each.get("SeriesInstanceUID") and is_wanted(str(each.get("Modality") or ""), self._config.modalities)
        }
        keys = {"StudyInstanceUID": study_uid, "SOPInstanceUID": "", "SOPClassUID": ""}
        answers = self._find([_identifier("IMAGE", SeriesInstanceUID=uid, **keys) for uid in wanted])
        return [
            FoundSeries(
                uid,
                modality,
                {
                    str(one.SOPInstanceUID): str(one.get("SOPClassUID") or "")
                    for one in found
                    if one.get("SOPInstanceUID")
                },
            )
            for (uid, modality), found in zip(wanted.items(), answers, strict=True)
        ]

    def fetch(self, study_uid: str, series: FoundSeries, missing: Sequence[str], take: Callable[[Path], None]) -> None:
        """See `Archive.fetch`."""
        from pynetdicom import evt

        classes = sorted({kind for kind in series.objects.values() if kind})[:_MOST_CLASSES] or list(_USUAL)
        offered = [(kind, each) for kind in classes for each in (UNCOMPRESSED, *((one,) for one in _COMPRESSED))]
        failed: list[Exception] = []
        refused: list[RefusedError] = []
        came: set[str] = set()

        def store(event: Any) -> int:
            try:
                take(event.dataset_path)
                came.add(str(event.request.AffectedSOPInstanceUID))
            # It is raised again below; the library would only log it.
            except Exception as error:
                failed.append(error)
                return 0xA700
            finally:  # unlike for a receiver, the library leaves that to the caller
                event.request._dataset_file.close()
                event.dataset_path.unlink(missing_ok=True)
            return 0x0000

        largest = int(self._config.largest_object_gb * 1e9)
        link = associated(
            self._config,
            [(_GET, UNCOMPRESSED)],
            sorted(offered, key=lambda each: each[1] != UNCOMPRESSED)[:_MOST_CONTEXTS],
            [
                (evt.EVT_C_STORE, store),
                (evt.EVT_CONN_OPEN, lambda event: bound(event.assoc, largest, self._spool)),
                (evt.EVT_CONN_CLOSE, lambda event: clear_unfinished(event.assoc)),
            ],
        )
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series.uid}
        try:
            if len(missing) == len(series.objects):
                refused += _refusals(link, _identifier("SERIES", **keys))
            for uid in missing:  # after a failure the others are fetched one by one
                if uid not in came and not failed and link.is_established:
                    refused += _refusals(link, _identifier("IMAGE", **keys, SOPInstanceUID=uid))
            for each in (*failed, *refused[-1:] * (not came.issuperset(missing))):
                raise each
        except ValueError as error:  # no context was accepted, or the connection ended
            raise RefusedError(f"{self._config.ae_title}: {error}") from None
        finally:
            link.release()

    def _find(self, queries: Sequence[Dataset]) -> list[list[Dataset]]:
        """The answers to each of several queries."""
        if not queries:
            return []
        link = associated(self._config, [(_FIND, UNCOMPRESSED)])
        try:
            return [self._answers(link, asked) for asked in queries]
        except ValueError as error:  # no context was accepted, or the connection ended
            raise RefusedError(f"{self._config.ae_title}: {error}") from None
        finally:
            link.release()

    def _answers(self, link: Any, asked: Dataset) -> list[Dataset]:
        answers: list[Dataset] = []
        for status, found in link.send_c_find(asked, _FIND):
            if status.get("Status") not in _PENDING:
                check_status(status, "C-FIND")
            elif found is not None:
                answers.append(found)
            if len(answers) > MOST_STUDIES:
                link.abort()
                raise RefusedError(
                    f"{self._config.ae_title} has more than {MOST_STUDIES} answers to a query; ask for fewer days"
                )
        return answers


def _refusals(link: Any, asked: Dataset) -> list[RefusedError]:
    """Retrieve what is asked for; why it failed, if it did."""
    statuses = [status for status, _ in link.send_c_get(asked, _GET)]
    try:
        check_status(statuses[-1] if statuses else Dataset(), "C-GET")
    except RefusedError as error:
        return [error]
    return []


def _identifier(level: str, **keys: str) -> Dataset:
    data = Dataset()
    data.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(data, keyword, UID(value) if keyword.endswith("UID") else value)
    return data


def _count(found: Dataset) -> int | None:
    try:
        return int(found.get("NumberOfStudyRelatedInstances") or 0) or None
    except (TypeError, ValueError):
        return None
