"""A service on a folder of its own, whose steps the tests take one by one, in this process or in one that dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.config.site import SiteConfig, load_site
from medseg.inference.load import load_model
from medseg.service import fault_points
from medseg.service.audit import Audit
from medseg.service.intake import Intake
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.worker import Worker


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


@dataclass
class Service:
    """A site file and what works on it; each call opens the queue anew, as a process would."""

    path: Path
    now: float = 1e9

    @property
    def site(self) -> SiteConfig:
        return load_site(self.path)

    @property
    def inbox(self) -> Path:
        assert self.site.watch is not None
        return self.site.watch.folder

    @property
    def places(self) -> Places:
        return Places(self.site.folder).make()

    def queue(self) -> Queue:
        return Queue(self.places.queue, lambda: self.now)

    def change(self, **values: Any) -> None:
        """Change keys of the site file."""
        known = yaml.safe_load(self.path.read_text())
        self.path.write_text(yaml.safe_dump({**known, **values}))

    def put(self, folder: Path, name: str = "one") -> Path:
        """Copy a study into the watched folder."""
        return Path(shutil.copytree(folder, self.inbox / name))

    def intake(self) -> int:
        return Intake(self.site, self.places, self.queue(), Audit(self.places)).step()

    def work(self) -> int:
        """All jobs that are ready, by a worker that has just started; how many there were."""
        worker = Worker(self.site, self.places, self.queue(), Audit(self.places))
        worker.recover()
        done = 0
        while worker.step():
            done += 1
        return done

    def killed_at(self, place: str, step: Callable[[], object]) -> None:
        """Take a step in a process of its own that dies at a place, as by kill -9."""
        pid = os.fork()
        if not pid:
            os.environ[fault_points.VARIABLE] = place
            try:
                step()
            finally:
                os._exit(0)  # was not reached
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"{place} was not reached"

    def audit(self) -> list[dict[str, Any]]:
        files = sorted(self.places.audit.glob("*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]

    def results(self) -> dict[str, bytes]:
        """Everything in the folder of results that is a mask."""
        return {str(p.relative_to(self.places.results)): p.read_bytes() for p in self.places.results.rglob("*.dcm")}


@pytest.fixture
def service(tmp_path: Path, threshold_bundle: Callable[..., Path]) -> Service:
    """A service with one rule, a model that labels what is above 0.5."""
    model = threshold_bundle()
    (tmp_path / "inbox").mkdir()
    values = {
        "folder": "service",
        "watch": {"folder": "inbox", "settle_s": 0},
        "quiet_s": 0,
        "reserve_gb": 0,
        "rules": [{"name": "spots", "model": str(model), "model_hash": load_model(model).model_hash}],
    }
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(values))
    return Service(path)
