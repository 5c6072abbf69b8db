"""A model from anywhere runs no code, writes nothing, and takes neither the memory nor the time of the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_bundles import CODE, HOSTILE, NOT_FOR_PREDICTION
from hostile_changes import WEIGHTS, Harm, carry_code, refused, small_unet
from inference_bundles import make_info, make_plan, unet_weights

import medseg
from medseg.cli import main
from medseg.errors import CheckpointError
from medseg.inference import load_bundle, load_model, save_bundle
from medseg.nets import load_pretrained
from medseg.studies import PredictOptions, predict_studies
from medseg.training.checkpoint import load_checkpoint
from medseg.training.init_weights import initialise
from medseg.volume import Volume

MOST_SECONDS, MOST_BYTES = 10.0, 10**9
# In a process that has all libraries in memory already, each bundle takes far less than that.
MORE_SECONDS, MORE_BYTES = 5.0, 200 << 20


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A good bundle that carries code beside its weights."""
    info = make_info(make_plan(), "unet")
    folder = save_bundle(tmp_path / "bundle", info, {0: unet_weights(info)})
    carry_code(folder, tmp_path / "canary")
    return folder


@pytest.fixture
def little_taken() -> Iterator[None]:
    """Neither much time nor much memory goes by."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, started = _resident("VmRSS"), time.process_time()
    yield
    assert time.process_time() - started < MORE_SECONDS
    assert _resident("VmHWM") - before < MORE_BYTES


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) * 1024


def _everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_there_are_many_of_them_and_the_bundle_they_are_made_from_is_good(bundle):
    assert len(HOSTILE) >= 30
    load_model(bundle, "cpu")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_in_one_line_whichever_way_it_comes_in(
    name, bundle, empty_image, tmp_path, monkeypatch, capsys, little_taken
):
    place = HOSTILE[name](bundle)
    if place == bundle:
        run = tmp_path / "run"
        run.mkdir()
        (run / "model").symlink_to(bundle)
    monkeypatch.chdir(bundle)
    before, loaded, path = _everything(tmp_path), set(sys.modules), list(sys.path)
    message = refused(lambda: load_model(place, "cpu"))
    assert place.name in message
    monkeypatch.setattr(sys, "argv", ["medseg", "predict", str(place), str(empty_image), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (5, "", 1), out + err
    if place == bundle:
        refused(lambda: load_model(run, "cpu"))
    if name not in CODE.keys() | NOT_FOR_PREDICTION and "of code" not in name:
        refused(lambda: load_bundle(place))
        refused(lambda: initialise(small_unet(), place))
    else:
        initialise(small_unet(), place)
    assert _everything(tmp_path) == before
    assert sys.path == path
    assert not {m for m in set(sys.modules) - loaded if m.partition(".")[0] in ("brought", "package", "hubconf")}


@pytest.mark.slow
def test_a_hostile_bundle_costs_a_fresh_process_less_than_a_gigabyte_and_ten_seconds(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDSEG_ALLOW_CODE", raising=False)
    (tmp_path / "in").mkdir()
    medseg.write(Volume(np.zeros((12, 12, 12), np.float32), np.eye(4)), tmp_path / "in" / "case.nii.gz")
    rows = []
    for number, (name, change) in enumerate(HOSTILE.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        info = make_info(make_plan(), "unet")
        good = save_bundle(folder / "bundle", info, {0: unet_weights(info)})
        carry_code(good, folder / "canary")
        place = change(good)
        before = _everything(folder)
        command = [sys.executable, "-m", "medseg", "predict", str(place), str(tmp_path / "in"), "-o", "out"]
        started = time.monotonic()
        running = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = running.stdout.read(), running.stderr.read()
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        for stream in (running.stdout, running.stderr):
            stream.close()
        seconds, peak = time.monotonic() - started, used.ru_maxrss * 1024
        # Of the processor, as others may have it meanwhile; nothing here waits for anything else.
        busy = used.ru_utime + used.ru_stime
        rows.append(f"| {name} | {running.returncode} | {seconds:.1f} | {peak / 1e6:.0f} | {err.strip()[:300]} |")
        assert (running.returncode, out, err.count("\n")) == (5, "", 1), rows[-1] + out + err
        assert busy < MOST_SECONDS and seconds < 5 * MOST_SECONDS and peak < MOST_BYTES, rows[-1]
        assert _everything(folder) == before, rows[-1]
        shutil.rmtree(folder)
    sys.stdout.write(
        "\n".join(["| bundle | exit code | seconds | peak MB | message |", "|---|---|---|---|---|", *rows])
    )


@pytest.mark.parametrize("way", ["training.init", "load_pretrained", "last.pt"])
@pytest.mark.parametrize("kind", ["pickle", "torch", "packed", "numbers that are not there", "no numbers"])
def test_a_file_of_weights_runs_no_code_and_holds_what_it_says(kind, way, tmp_path, little_taken):
    import pickle
    import zipfile

    path = tmp_path / "weights.pt"
    state = dict(small_unet().state_dict())
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Harm(tmp_path / "canary")))
    elif kind == "torch":
        torch.save({**state, "harm": Harm(tmp_path / "canary")}, path)
    elif kind == "packed":
        torch.save(state, tmp_path / "plain.pt")
        with (
            zipfile.ZipFile(tmp_path / "plain.pt") as plain,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for each in plain.infolist():
                packed.writestr(each.filename, plain.read(each))
    elif kind == "numbers that are not there":
        torch.save({**state, "encoder.0.first.conv.weight": torch.zeros(1).expand(4, 10**9, 3, 3, 3)}, path)
    else:
        torch.save({key: torch.full_like(value, float("nan")) for key, value in state.items()}, path)
    calls = {
        "training.init": lambda: initialise(small_unet(), path),
        "load_pretrained": lambda: load_pretrained(small_unet(), path),
        "last.pt": lambda: load_checkpoint(path),
    }
    refused(calls[way])
    assert not (tmp_path / "canary").exists()


def test_the_weights_of_a_good_bundle_are_those_of_its_file_and_its_network_computes_the_same(tmp_path):
    info = make_info(make_plan())
    weights = unet_weights(info)
    folder = save_bundle(tmp_path / "model", info, {0: weights})
    model = load_model(folder, "cpu")
    assert all(torch.equal(value, weights[key]) for key, value in model.nets[0].state_dict().items())
    usual = info.net.build().eval()
    usual.load_state_dict(weights)
    x = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.nets[0](x), usual(x))
    assert not any(p.requires_grad for p in model.nets[0].parameters())


def test_halves_in_a_file_become_the_numbers_of_the_network(tmp_path):
    info = make_info(make_plan())
    weights = unet_weights(info)
    folder = save_bundle(tmp_path / "model", info, {0: {key: value.half() for key, value in weights.items()}})
    own = load_model(folder, "cpu").nets[0].state_dict()
    assert all(torch.equal(own[key], value.half().float()) for key, value in weights.items())


def test_a_run_folder_does_not_pass_on_what_its_links_lead_to(tmp_path):
    info = make_info(make_plan())
    folder = save_bundle(tmp_path / "model", info, {0: unet_weights(info)})
    (tmp_path / "secret").write_text("key")
    (folder / "weights_fold1.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="link"):
        save_bundle(folder, info, {0: unet_weights(info)})
    assert (folder / "weights_fold1.safetensors").is_symlink()


def test_a_model_larger_than_the_machine_is_refused_before_memory_is_asked_for(tmp_path, monkeypatch):
    from medseg.inference import bundle, bundle_nets

    info = make_info(make_plan())
    folder = save_bundle(tmp_path / "model", info, {0: unet_weights(info)})
    for module in (bundle, bundle_nets):
        with monkeypatch.context() as small:
            small.setattr(module, "device_memory", lambda device: 1000)
            assert re.search(r"this machine has", refused(lambda: load_model(folder, "cpu")))
    assert (folder / WEIGHTS).stat().st_size > 1000


def test_a_plan_and_a_configuration_have_the_same_bounds(tmp_path):
    from medseg.config import load_config
    from medseg.preparation.plan import load_plan, save_plan

    save_plan(make_plan(), tmp_path / "plan.yaml")
    good = (tmp_path / "plan.yaml").read_text()
    for old, new in {
        "patch_size: [8, 8, 8]": "patch_size: [1000000, 1000000, 1000000]",
        "spacing_mm: [1.0, 1.0, 1.0]": "spacing_mm: [1.0e-300, 1.0, 1.0]",
        "batch_size: 2": "batch_size: 1000000000",
        "std: 1.0": "std: .nan",
    }.items():
        assert old in good
        (tmp_path / "bad.yaml").write_text(good.replace(old, new))
        refused(lambda: load_plan(tmp_path / "bad.yaml"), code=2)
    for key, value in {
        "plan.patch_size": [10**6] * 3,
        "plan.spacing_mm": [1e-300] * 3,
        "data.labels": {"a\nb": 1},
        "data.select": [{"description": "(a+)+$"}],
        "prediction.overlap": 0.999999,
        "prediction.postprocess": {"keep_components": {"a": 10**30}},
    }.items():
        refused(lambda k=key, v=value: load_config("hippocampus", {"data.root": "x", k: v}), code=2)


@pytest.mark.parametrize(
    "pattern", ["t1.*(ce|gd|post)", "^ax.*flair", "(?!.*derived).*t2[ _-]?w", r"\bFLAIR\b|tirm", "b ?= ?[0-9]+"]
)
def test_patterns_that_people_write_are_taken(pattern):
    make_plan(select=({"description": pattern},))


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path, little_taken):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    merged = ["a0: &a0 {k: 1}"]
    merged += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    from medseg.config import load_config
    from medseg.io.label_names import read_label_names
    from medseg.preparation.plan import load_plan

    for content in ("\n".join(lines), "\n".join(merged), "a: &a [*a]", "[" * 20000):
        (tmp_path / "bomb.yaml").write_text(content)
        for read in (load_config, read_label_names, load_plan):
            refused(lambda r=read: r(tmp_path / "bomb.yaml"), code=2)


def test_a_net_of_ones_own_is_shown_in_the_ledger_as_any_other(threshold_bundle, empty_image, tmp_path):
    own = threshold_bundle(patch_size=(32, 32, 32))
    predict_studies(own, [empty_image], tmp_path / "out", PredictOptions(preview=False)).raise_for_failures()
    row = json.loads((tmp_path / "out" / "ledger.jsonl").read_text().splitlines()[0])
    # Permission changes no mask, so it is no reason to predict again.
    assert "allow_code" not in row["options"]
    again = PredictOptions(preview=False, allow_code=("inference_nets", "json"))
    assert predict_studies(own, [empty_image], tmp_path / "out", again).rows == ()
