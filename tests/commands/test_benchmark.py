"""`medseg benchmark`: every model by every engine, in a process of its own, with what it rests on beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_fixtures import as_for_tests, one_thread  # noqa: F401
from inference_bundles import make_info, make_plan, threshold_weights
from PIL import Image
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.commands.benchmark import run
from medseg.commands.benchmark.contenders import available_engines, read_models
from medseg.commands.benchmark.measure import measure
from medseg.commands.benchmark.row import pareto_front
from medseg.errors import ConfigError, MedsegError, MissingPartError
from medseg.inference import engine, save_bundle
from medseg.preparation.plan import ChannelPlan
from medseg.volume import Volume

HELPERS = str(Path(__file__).resolve().parents[1] / "helpers")


@pytest.fixture(autouse=True)
def helpers_in_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HELPERS, os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Measures in this process; gives the jobs in their order."""
    jobs: list[Any] = []

    def measured(job: Any) -> dict[str, Any]:
        jobs.append(job)
        try:
            return measure(job)
        except MedsegError as error:
            return {"error": str(error)}

    monkeypatch.setattr(run, "measured_apart", measured)
    return jobs


def bright_model(path: Path, above: float, channels: int = 1) -> Path:
    """Label 1 where a picture of 8 bits is above `above` times 200."""
    window = ChannelPlan(kind="window", low=0, high=200, mean=0.0, std=200.0)
    plan = make_plan(
        dims=2,
        orientation=None,
        spacing_mm=None,
        patch_size=(16, 16),
        strides=((1, 1), (2, 2)),
        in_channels=channels,
        normalization=(window,) * channels,
    )
    info = make_info(plan, "inference_nets:build_threshold", {"spot": 1})
    return save_bundle(path, info, {0: threshold_weights(2, above)})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Nine pictures of noise, of which what is above 100 is the reference."""
    rng = np.random.default_rng(0)
    for n in range(9):
        picture = Volume(rng.integers(0, 201, (20 + n, 24), np.uint8), np.eye(4), spacing_known=False)
        medseg.write(picture, tmp_path / "data" / "images" / f"p{n}.png")
        medseg.write(picture.with_array(np.uint8(picture.array > 100)), tmp_path / "data" / "labels" / f"p{n}.png")
    return tmp_path / "data"


def benchmark(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, MedsegError), result.exception
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "benchmark.json").read_text())
    return found


@pytest.mark.usefixtures("here")
def test_models_and_engines_are_compared_on_the_references_with_intervals_and_a_picture(
    tmp_path: Path, data: Path
) -> None:
    models = [bright_model(tmp_path / name / "model", above) for name, above in (("right", 0.5), ("wrong", 0.7))]
    code, text = benchmark(*models, "--data", data, "-o", tmp_path / "out", "--engines", "eager,frozen", "--threads", 1)
    assert code == 0, text
    found = results(tmp_path / "out")
    assert found["format_version"] == 1 and found["cases"] == [f"p{n}" for n in range(9)] and found["threads"] == 1
    assert found["machine"]["processor"] and found["versions"]["medseg"] == medseg.__version__
    names = [(row["model"], row["engine"]) for row in found["rows"]]
    assert names == [("right", "eager"), ("right", "frozen"), ("wrong", "eager"), ("wrong", "frozen")]
    for row in found["rows"]:
        assert row["state"] == "done" and np.shape(row["seconds"]) == np.shape(row["cpu_seconds"]) == (2, 9)
        seconds = np.array(row["seconds"])
        assert row["median_seconds"] == pytest.approx(np.median(seconds))
        assert row["p95_seconds"] == pytest.approx(np.quantile(seconds, 0.95))
        assert row["cases_per_second"] == pytest.approx(18 / seconds.sum())
        assert row["voxels"] == [24 * (20 + n) for n in range(9)]
        assert row["voxels_per_second"] == pytest.approx(2 * sum(row["voxels"]) / seconds.sum())
        assert row["peak_memory_bytes"] > 10**7
        assert row["file_bytes"] == sum(path.stat().st_size for path in (tmp_path / row["model"] / "model").iterdir())
        assert row["dice"]["n"] == 9
    right, wrong = found["rows"][0]["dice"], found["rows"][2]["dice"]
    assert right["mean"] == 1.0 and right["labels"] == {"spot": 1.0}
    # Grey levels are even, so 2 * 60 / (60 + 100) of those above 100 are found.
    assert wrong["mean"] == pytest.approx(0.75, abs=0.03)
    assert wrong["interval"][0] < wrong["mean"] < wrong["interval"][1]
    assert any(row["on_pareto_front"] for row in found["rows"][:2])
    assert not any(row["on_pareto_front"] for row in found["rows"][2:] if row["median_seconds"] > min(
        each["median_seconds"] for each in found["rows"][:2]
    ))  # fmt: skip
    page = (tmp_path / "out" / "benchmark.md").read_text()
    for said in (text, page):
        assert "right" in said and "frozen" in said and "vector extensions" in said and "1.0000" in said
    with Image.open(tmp_path / "out" / "pareto.png") as picture:
        assert min(picture.size) > 300


def test_each_contender_is_measured_in_rounds_that_run_forwards_and_back(
    tmp_path: Path, data: Path, here: list[Any]
) -> None:
    models = [bright_model(tmp_path / name / "model", 0.5) for name in ("a", "b")]
    code, text = benchmark(*models, "--data", data, "-o", tmp_path / "out", "--engines", "eager,frozen", "--cases", 2)
    assert code == 0, text
    order = [(job.model.parent.name, job.engine) for job in here]
    assert order[:4] == [("a", "eager"), ("a", "frozen"), ("b", "eager"), ("b", "frozen")]
    assert order[4:] == order[:4][::-1] and all(len(job.cases) == 2 for job in here)


def test_a_model_is_measured_in_a_process_of_its_own(tmp_path: Path, data: Path) -> None:
    model = bright_model(tmp_path / "right", 0.5)
    code, text = benchmark(model, "--data", data, "-o", tmp_path / "out", "--engines", "eager", "--cases", 1)
    assert code == 0, text
    (row,) = results(tmp_path / "out")["rows"]
    assert row["dice"]["mean"] == 1.0 and row["dice"]["interval"] is None
    assert 10**8 < row["peak_memory_bytes"] < 10**9


@pytest.mark.usefixtures("here")
def test_without_references_agreement_with_the_first_is_shown(tmp_path: Path, data: Path) -> None:
    models = [bright_model(tmp_path / name, above) for name, above in (("first", 0.5), ("other", 0.7))]
    where = ("--data", data / "images", "-o", tmp_path / "out", "--engines", "eager")
    code, text = benchmark(*models, *where)
    assert code == 0 and "agreement is Dice with the masks of first eager" in text, text
    first, other = (row["dice"]["mean"] for row in results(tmp_path / "out")["rows"])
    assert first == 1.0 and other == pytest.approx(0.75, abs=0.03)


@pytest.mark.usefixtures("here")
def test_references_may_lie_elsewhere_and_have_0_and_255(tmp_path: Path, data: Path) -> None:
    (tmp_path / "masks").mkdir()
    for path in (data / "labels").iterdir():
        mask = medseg.read(path)
        medseg.write(mask.with_array(mask.array * np.uint8(255)), tmp_path / "masks" / path.name)
    model = bright_model(tmp_path / "model", 0.5)
    where = (model, "--data", data / "images", "--references", tmp_path / "masks", "--engines", "eager", "--cases", 3)
    code, text = benchmark(*where, "-o", tmp_path / "a")
    assert code == 5 and "--label-threshold 127" in text
    code, text = benchmark(*where, "-o", tmp_path / "b", "--label-threshold", 127)
    assert code == 0 and results(tmp_path / "b")["rows"][0]["dice"]["mean"] == 1.0, text


def test_an_engine_that_fails_is_named_with_its_reason_and_the_others_go_on(
    tmp_path: Path, data: Path, here: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(job: Any) -> dict[str, Any]:
        here.append(job)
        return {"error": "its process was ended by SIGKILL"} if job.engine == "eager" else measure(job)

    monkeypatch.setattr(run, "measured_apart", measured)
    model = bright_model(tmp_path / "m", 0.5)
    where = ("--data", data / "images", "-o", tmp_path / "out", "--engines", "eager,frozen", "--cases", 2)
    code, text = benchmark(model, *where)
    assert code == 0 and "failed: its process was ended by SIGKILL" in text
    # Masks of the one that failed are no measure for the other.
    assert "with the masks of m frozen" in text
    failed, done = results(tmp_path / "out")["rows"]
    assert failed["state"] == "failed" and done["dice"]["mean"] == 1.0
    assert [job.engine for job in here] == ["eager", "frozen", "frozen"]


@pytest.mark.usefixtures("here")
def test_an_engine_in_whose_place_another_one_runs_says_so(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = engine.NetworkEngine.networks

    def replaced(self: engine.NetworkEngine, *arguments: Any, **options: Any) -> Any:
        engine.log.info("network engine %s: runs by something else", self.name)
        return networks(self, *arguments, **options)

    monkeypatch.setattr(engine.NetworkEngine, "networks", replaced)
    model = bright_model(tmp_path / "m", 0.5)
    code, text = benchmark(model, "--data", data, "-o", tmp_path / "out", "--engines", "frozen", "--cases", 1)
    assert code == 0 and text.count("m frozen: network engine frozen: runs by something else.") == 1
    assert results(tmp_path / "out")["rows"][0]["notes"] == ["network engine frozen: runs by something else"]


def test_engines_are_those_of_this_machine_and_others_are_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Some(engine.NetworkEngine):
        def __init__(self, device: Any, name: str | None = None, **options: Any) -> None:
            if name == "new":
                raise MissingPartError("new is not installed")
            if name == "bf16":
                raise ConfigError("no such instructions")
            super().__init__(device, name, **options)

    from medseg.commands.benchmark import contenders

    monkeypatch.setattr(contenders, "NetworkEngine", Some)
    monkeypatch.setattr(contenders, "ENGINES", ("eager", "frozen", "bf16", "new"))
    names, left_out = available_engines("cpu", None)
    assert names == ("eager", "frozen") and set(left_out) == {"bf16", "new"}
    assert "no such instructions" in left_out["bf16"] and left_out["new"] == "new is not installed"
    with pytest.raises(ConfigError, match="no such instructions"):
        available_engines("cpu", ["bf16"])


def test_models_are_called_by_what_tells_them_apart(tmp_path: Path) -> None:
    paths = [bright_model(tmp_path / end, 0.5) for end in ("x/run/model", "y/run/model", "z")]
    assert [model.name for model in read_models(paths)] == ["x/run", "y/run", f"{tmp_path.name}/z"]
    assert [model.name for model in read_models(paths[:1])] == ["run"]
    with pytest.raises(ConfigError, match="twice"):
        read_models([paths[0], paths[0]])


def test_what_cannot_be_measured_is_refused_in_one_line_and_nothing_is_written(tmp_path: Path, data: Path) -> None:
    grey, colour = bright_model(tmp_path / "grey", 0.5), bright_model(tmp_path / "colour", 0.5, channels=3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    for models, more, code, words in (
        ([], ("--data", data), 2, "MODEL"),
        ([tmp_path / "none"], ("--data", data), 5, "none"),
        ([grey], ("--data", tmp_path / "nowhere"), 3, "not a folder"),
        ([grey], ("--data", tmp_path / "empty"), 3, "empty"),
        ([grey, colour], ("--data", data), 3, "takes 2D images of 3"),
        ([grey], ("--data", data, "--engines", "egaer"), 2, "eager"),
        ([grey], ("--data", data, "--device", "abacus"), 2, "abacus"),
        ([grey], ("--data", data / "images", "--references", tmp_path / "empty"), 3, "'p0'"),
    ):
        found, text = benchmark(*models, *more, "-o", tmp_path / "out")
        assert found == code and words in text, (words, found, text)
        assert not (tmp_path / "out").exists()
    code, text = benchmark(grey, "--data", data, "-o", tmp_path / "taken")
    assert code == 6 and "taken" in text
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["notes.txt"]


def test_the_front_is_what_nothing_beats() -> None:
    points = [(2.0, 0.9), (1.0, 0.8), (1.0, 0.8), (3.0, 0.9), (4.0, 0.95), (0.5, 0.1)]
    assert pareto_front(points) == (5, 1, 0, 4)
    assert pareto_front([]) == ()
