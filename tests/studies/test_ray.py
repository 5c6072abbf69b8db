"""The Ray engine on two local machines, one of which dies in mid-run; and what it says where it cannot work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from inference_bundles import make_info, make_plan, threshold_weights

import medseg
from medseg.errors import ConfigError, MissingPartError
from medseg.inference import load_model, save_bundle
from medseg.studies import PredictOptions, predict_studies
from medseg.volume import Volume

CASES = 12
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (pip install '.[ray]')")

# Labels what is above 0.5, after a while; leaves a file for each worker that is at it.
SLOW_NET = """
import os, time
from pathlib import Path
from inference_nets import Threshold

class Slow(Threshold):
    def forward(self, x):
        Path(os.environ["AT_WORK"], str(os.getpid())).touch()
        time.sleep(0.5)
        return super().forward(x)

def build(dims, in_channels, out_channels, **_):
    return Slow(out_channels)
"""
# Ray's own time limits are meant for machines that do nothing else.
TWO_MACHINES = """
import os, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from medseg.studies import PredictOptions, predict_studies

model, studies, out = map(Path, sys.argv[1:])
room = dict(num_cpus=1, object_store_memory=80 * 2**20)
cluster = Cluster(initialize_head=True, head_node_args={**room, "include_dashboard": False})
second = cluster.add_node(**room)

def kill():
    at_work = Path(os.environ["AT_WORK"])
    while len(list(at_work.iterdir())) < 2:
        time.sleep(0.02)
    cluster.remove_node(second, allow_graceful=False)
    print("killed after", len((out / "ledger.jsonl").read_text().splitlines()), "cases", flush=True)

killer = threading.Thread(target=kill, daemon=True)
killer.start()
result = predict_studies(model, [studies], out, PredictOptions(engine="ray", ray_address=cluster.address))
killer.join(5)
print(result.counts, "killer done:", not killer.is_alive(), flush=True)
sys.exit(result.exit_code)
"""


@pytest.fixture
def slow_bundle(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "slow_net.py").write_text(SLOW_NET)
    info = make_info(make_plan(spacing_mm=None), "slow_net:build", {"spot": 1})
    return save_bundle(tmp_path / "slow", info, {0: threshold_weights(2, 0.5)})


def _studies(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(count):
        image = rng.normal(size=(12, 12, 12)).astype(np.float32)
        medseg.write(Volume(image, np.diag([-1.0, 1.0, 1.0, 1.0])), folder / f"study{n:02d}.nii.gz")
    return folder


@pytest.mark.slow
@needs_ray
def test_a_machine_dies_and_all_studies_are_done_once_with_the_masks_of_one_machine(slow_bundle, tmp_path, monkeypatch):
    studies, out = _studies(tmp_path / "in", CASES), tmp_path / "out"
    (tmp_path / "at_work").mkdir()
    monkeypatch.setenv("AT_WORK", str(tmp_path / "at_work"))
    for folder in (Path(__file__).parents[1] / "helpers", tmp_path / "code"):
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "600")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    command = [sys.executable, "-c", TWO_MACHINES, str(slow_bundle), str(studies), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killer done: True" in done.stdout and "its worker was lost" in done.stderr, done.stdout + done.stderr
    rows = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert sorted(row["case"] for row in rows) == [f"study{n:02d}" for n in range(CASES)]
    assert {row["state"] for row in rows} <= {"done", "needs_review"}
    monkeypatch.syspath_prepend(tmp_path / "code")
    predict_studies(slow_bundle, [studies], tmp_path / "local").raise_for_failures()
    for name in [*(f"study{n:02d}.nii.gz" for n in range(CASES)), "measurements.csv"]:
        assert (out / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert predict_studies(slow_bundle, [studies], out).rows == ()
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "local").iterdir())


def test_without_ray_the_error_says_what_to_install(unet_bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    studies = _studies(tmp_path / "in", 1)
    with pytest.raises(MissingPartError, match=r"pip install -c constraints.txt '\.\[ray\]'"):
        predict_studies(unet_bundle, [studies], tmp_path / "out", PredictOptions(engine="ray"))


def test_workers_load_the_model_themselves_and_need_its_path(unet_bundle, tmp_path):
    with pytest.raises(ConfigError, match="path of its bundle"):
        predict_studies(
            load_model(unet_bundle), [_studies(tmp_path / "in", 1)], tmp_path / "out", PredictOptions(engine="ray")
        )


def test_an_unknown_engine_and_an_address_without_ray_are_refused():
    with pytest.raises(ConfigError, match="local or ray"):
        PredictOptions(engine="dask")
    with pytest.raises(ConfigError, match="add --engine ray"):
        PredictOptions(ray_address="head:6379")


@needs_ray
def test_an_address_where_nothing_answers_is_named(unet_bundle, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = PredictOptions(engine="ray", ray_address=address)
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at '{address}' .*ray start --head"):
            predict_studies(unet_bundle, [_studies(tmp_path / "in", 1)], tmp_path / "out", options)


@pytest.mark.parametrize("address", [None, "127.0.0.1:0"])
def test_where_ray_does_not_start_it_is_one_line_of_the_environment(unet_bundle, tmp_path, monkeypatch, address):
    class Broken:
        """Ray raises Exception itself where one of its processes ends at once."""

        @staticmethod
        def is_initialized():
            return False

        @staticmethod
        def init(*args, **kwargs):
            raise Exception("The current node timed out during startup.\nThis could happen because ...")

    monkeypatch.setitem(sys.modules, "ray", Broken)
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    medseg.write(Volume(np.zeros((12, 11, 10), np.float32), np.eye(4)), tmp_path / "in" / "case.nii.gz")
    options = PredictOptions(engine="ray", ray_address=address, device="cpu")
    with pytest.raises(MissingPartError, match="timed out during startup") as refused:
        predict_studies(unet_bundle, [tmp_path / "in"], tmp_path / "out", options)
    assert refused.value.exit_code == 6 and "\n" not in str(refused.value)
