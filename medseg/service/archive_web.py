"""Fetching from a DICOMweb archive: QIDO-RS for what there is, WADO-RS for each object, as it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from medseg.config.site_network import WebSource
from medseg.service.archive import MOST_STUDIES, Found, FoundSeries, dates, is_wanted
from medseg.service.dicom_link import RefusedError
from medseg.service.web_link import answered, web_client

__all__ = ["WebArchive"]

_PAGE = 500


class WebArchive:
    """An `Archive` that is asked by QIDO-RS.

    Args:
        config: its address, and what is asked for.
        incoming: folder for an object while it is being taken.
        today: the day; tests give their own.
    """

    def __init__(self, config: WebSource, incoming: Path, today: Callable[[], date] = date.today) -> None:
        self._config = config
        self._incoming = incoming
        self._today = today
        self._client: Any = None
        self.calling_ae = ""

    @contextmanager
    def open(self) -> Iterator[None]:
        """See `Archive.open`."""
        with web_client(self._config, int(self._config.largest_object_gb * 1e9)) as self._client:
            yield

    def studies(self) -> Iterator[Found]:
        """See `Archive.studies`."""
        seen: set[str] = set()
        for modality in self._config.modalities or ("",):
            filters = {"StudyDate": dates(self._config.days, self._today())}
            if modality:
                filters["ModalitiesInStudy"] = modality
            asked = {"search_filters": filters, "fields": ["PatientID", "NumberOfStudyRelatedInstances"]}
            for each in self._search(self._client.search_for_studies, "StudyInstanceUID", **asked):
                uid = str(each.StudyInstanceUID)
                if uid not in seen:
                    seen.add(uid)
                    count = each.get("NumberOfStudyRelatedInstances")
                    yield Found(uid, str(each.get("PatientID") or ""), int(count) if count else None)

    def series(self, study_uid: str) -> list[FoundSeries]:
        """See `Archive.series`."""
        found = []
        for each in self._search(self._client.search_for_series, "SeriesInstanceUID", study_instance_uid=study_uid):
            uid, modality = str(each.SeriesInstanceUID), str(each.get("Modality") or "")
            if is_wanted(modality, self._config.modalities):
                keys = {"study_instance_uid": study_uid, "series_instance_uid": uid}
                objects = self._search(self._client.search_for_instances, "SOPInstanceUID", **keys)
                kinds = {str(one.SOPInstanceUID): str(one.get("SOPClassUID") or "") for one in objects}
                found.append(FoundSeries(uid, modality, kinds))
        return found

    def fetch(self, study_uid: str, series: FoundSeries, missing: Sequence[str], take: Callable[[Path], None]) -> None:
        """See `Archive.fetch`."""
        failed: list[RefusedError] = []
        for uid in missing:
            try:
                data = answered(self._config, partial(self._client.retrieve_instance, study_uid, series.uid, uid))
            except RefusedError as error:  # the others are fetched all the same
                failed.append(error)
                continue
            path = self._incoming / f"{id(data):x}.wado.part"
            try:
                answered(self._config, partial(data.save_as, path, enforce_file_format=True))
                take(path)
            finally:
                path.unlink(missing_ok=True)
        if failed:
            raise failed[0]

    def _search(self, call: Callable[..., Any], key: str, **asked: Any) -> Iterator[Dataset]:
        """All answers to a query, page by page; the end is a page with nothing new."""
        seen: set[str] = set()
        while len(seen) < MOST_STUDIES:
            search = partial(call, limit=_PAGE, offset=len(seen), **asked)
            page = answered(self._config, partial(_datasets, search))
            fresh = [each for each in page if each.get(key) and str(each[key].value) not in seen]
            if not fresh:
                return
            seen |= {str(each[key].value) for each in fresh}
            yield from fresh
            if len(page) < _PAGE:
                return
        raise RefusedError(f"{self._config.url} has more than {MOST_STUDIES} answers to a query; ask for fewer days")


def _datasets(search: Callable[[], Any]) -> list[Dataset]:
    return [Dataset.from_json(each) for each in search()]
