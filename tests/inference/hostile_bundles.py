"""Bundles that somebody made to harm: each is a change to a good one, by name.

`HOSTILE[name](bundle)` changes the folder of a good bundle and gives what is to be opened: the folder, or a zip.
"""

from __future__ import annotations

import json
import struct
import zipfile

import torch
from hostile_changes import (
    WEIGHTS,
    Change,
    bomb,
    both,
    deep,
    edited,
    encrypted,
    enormous,
    first,
    folder_of_weights,
    header,
    link,
    linked_entry,
    many_folds,
    moved_out,
    net,
    options,
    overlapping,
    pickled,
    pipe,
    raw,
    retyped,
    set_first,
    tensors,
    text,
    twice,
    zip_in_zip,
    zip_with,
    zipped,
)

SPAN = {"kind": "level", "what": "a", "low": 0.0, "high": 1.0, "cases": 3}
RANGE = {"cases": 3, "spans": [SPAN]}
FITTED = {"version": 3, "intercept": 0.0, "weights": [0.1] * 8, "cases": 3, "rows": 30, "error": 0.1}
HUGE = [2**20, 2**20]

# What would run code. The weights may still be taken by training.init, which builds no network of a bundle.
CODE: dict[str, Change] = {
    "torch.hub": net("torch.hub:load", repo_or_dir="bundle", source="local", model="model"),
    "os.system": net("os:system", command="touch canary"),
    "subprocess": net("subprocess:Popen", args=["touch", "canary"]),
    "builtins.exec": net("builtins:exec", source="open('canary', 'w')"),
    "code in the bundle": net("brought:build"),
    "package in the bundle": net("package:build"),
    "hubconf in the bundle": net("hubconf:model"),
    "submodule of a permitted module": net("inference_nets.more:build"),
    "a permitted module's torch": net(
        "inference_nets:torch.hub.load", repo_or_dir="bundle", source="local", model="model"
    ),
    "a name that is no name": net("os;import sys:system"),
}
# What can be read and only cannot be used to predict.
NOT_FOR_PREDICTION = {"postprocess of unknown labels"}

HOSTILE: dict[str, Change] = {
    **CODE,
    "options that rename the net": options(name="os:system"),
    "loss by name": edited("loss", value={"name": "brought:build"}),
    "augmentation by name": edited("augmentation", value={"custom": "brought:build"}),
    "a net of two lines": net("os\nsys:system"),
    "net by a dictionary": edited("net", "name", value={"_target_": "os.system"}),
    # Options of the net.
    "a million channels": options(channels=[10**6, 10**6]),
    "a million stages": options(channels=[8] * 10**6),
    "width of a billion": edited("net", "width", value=1e9),
    "no width": edited("net", "width", value=0),
    "a text as channels": options(channels="many"),
    "a dictionary as strides": options(strides={"a": {"b": 1}}),
    "strides of nothing": options(strides=[[1, 1, 1], [0, 0, 0]]),
    "strides that pad without end": options(channels=[4] * 8, strides=[[1, 1, 1], *[[60, 60, 60]] * 7]),
    "a norm by a list": options(norm=["instance", {"affine": "os.system"}]),
    "an activation from elsewhere": options(activation="torch.hub.load"),
    "an unknown option": options(pretrained="/etc/passwd"),
    "an option with a long name": options(**{"x" * 10**6: 1}),
    "dropout that is no number": options(dropout="0.5"),
    "residual blocks without number": net("unet_residual", channels=[4, 8], blocks=[10**8, 1]),
    "convolutions without number": net("nnunet_plain", channels=[4, 8], convs=[10**8, 1]),
    "kernels of a million": net("nnunet_resenc", channels=[4, 8], kernels=[[10**6] * 3] * 2),
    "kernels that are no list": net("nnunet_plain", channels=[4, 8], kernels=3),
    "kernels of the plan without number": edited("plan", "kernels", value=[[3, 3, 3]] * 10**6),
    "a norm of MONAI by a tuple": net("monai_segresnet", norm=["group", {"num_groups": 10**9}]),
    "a window of attention without end": net("monai_swinunetr", window=10**5),
    "blocks of MONAI without number": net("monai_segresnet", blocks=[10**7, 10**7]),
    "rates without end": net("deeplabv3", rates=[1] * 10**6),
    "a backbone from elsewhere": both(net("deeplabv3"), edited("net", "backbone", value="../../x")),
    "options nested deeply": options(channels=json.loads("[" * 200 + "]" * 200)),
    # The plan.
    "patch of a million": edited("plan", "patch_size", value=[10**6] * 3),
    "patch of three numbers that multiply": edited("plan", "patch_size", value=[4096] * 3),
    "batch of a billion": edited("plan", "batch_size", value=10**9),
    "a spacing of nothing": edited("plan", "spacing_mm", value=[1e-300] * 3),
    "a pattern that never ends": edited("plan", "select", value=[{"description": "(a+)+$"}]),
    "a pattern of many repeats": edited("plan", "select", value=[{"description": ".*" * 12 + "x"}]),
    "a pattern that is none": edited("plan", "select", value=[{"body_part": "("}]),
    "channels beyond counting": both(
        edited("plan", "in_channels", value=10**9), edited("net", "in_channels", value=10**9)
    ),
    "a spread of nothing": edited("plan", "normalization", 0, "std", value=1e-300),
    # The other values.
    "windows that hardly move": edited("prediction", "overlap", value=0.999999),
    "mirrored a thousand times": edited("prediction", "mirror_axes", value=[0] * 1000),
    "crf without end": edited("prediction", "crf", value={"iterations": 10**9}),
    "crf of negative length": edited("prediction", "crf", value={"smooth_mm": -1.0}),
    "crf over a light year": edited("prediction", "crf", value={"window_mm": 1e19}),
    "crf of another kind": edited("prediction", "crf", value={"iterations": [5]}),
    "calibration of other length": both(
        edited("reference_ranges", value=RANGE | {"always_present": [True, False]}),
        edited("calibration", value=FITTED | {"weights": [0.1] * 3}),
    ),
    "calibration of a million weights": edited("calibration", value=FITTED | {"version": 1, "weights": [0.1] * 10**6}),
    "calibration without labels": both(edited("reference_ranges", value=RANGE), edited("calibration", value=FITTED)),
    "postprocess of unknown labels": edited("prediction", "postprocess", value={"fill_holes": ["nothing"]}),
    "postprocess of negative size": edited("prediction", "postprocess", value={"minimum_volume_ml": {"lung": -1}}),
    "postprocess without number": edited("prediction", "postprocess", value={"keep_components": {"lung": 10**30}}),
    "a training range of unknown kind": edited("reference_ranges", value=RANGE | {"spans": [SPAN | {"kind": "os"}]}),
    "a training range upside down": edited("reference_ranges", value=RANGE | {"spans": [SPAN | {"low": 2.0}]}),
    "a training range beyond numbers": edited("reference_ranges", value=RANGE | {"spans": [SPAN | {"high": 1e300}]}),
    "negative labels": edited("labels", value={"lung": -1, "tumour": 2}),
    "labels beyond 16 bits": edited("labels", value={"lung": 1, "tumour": 2**31}),
    "labels without number": both(
        edited("labels", value={f"l{n}": n + 1 for n in range(60000)}), edited("net", "out_channels", value=60001)
    ),
    "a label of two lines": edited("labels", value={"lung\nmedseg: done": 1, "tumour": 2}),
    "a label that clears the screen": edited("labels", value={"lung\x1b[2J": 1, "tumour": 2}),
    "a label that is a path": edited("labels", value={"../../../etc/passwd": 1, "tumour": 2}),
    "a label of a megabyte": edited("labels", value={"l" * 10**6: 1, "tumour": 2}),
    "labels of one name": text('"lung": 1', '"lung": 1, "lung": 2'),
    # The text of model.json.
    "no number": text('"seconds": 0.0', '"seconds": NaN'),
    "infinity": text('"seconds": 0.0', '"seconds": 1e999'),
    "a score that is no number": text('"scores": {}', '"scores": {"fold0": {"dice": Infinity}}'),
    "a number of many digits": text('"iterations": 10', '"iterations": ' + "9" * 10000),
    "nested a little too deeply": deep(100),
    "nested far too deeply": deep(100_000),
    "two gigabytes of model.json": enormous("model.json", 2 << 30),
    "no text": raw(b"\xff\xfe\x00" * 100, "model.json"),
    "a list": raw(b"[1, 2]", "model.json"),
    # Links, pipes and devices.
    "weights that lead to passwd": link(WEIGHTS, "/etc/passwd"),
    "weights without end": link(WEIGHTS, "/dev/zero"),
    "weights that wait": pipe(WEIGHTS),
    "weights that are a folder": folder_of_weights,
    "model.json that leads out": moved_out,
    "model.json that waits": pipe("model.json"),
    "model.json without end": link("model.json", "/dev/zero"),
    # Weights.
    "a pickle": pickled,
    "a header without end": raw(struct.pack("<Q", 2**63) + b"{}"),
    "a header of zeros": raw(bytes(1000)),
    "ten gigabytes of zeros": enormous(WEIGHTS, 10 << 30),
    "a header nested deeply": raw(struct.pack("<Q", 200_000) + b"[" * 200_000),
    "a shape beyond the file": header(lambda e: first(e).update(shape=HUGE, data_offsets=[0, 2**42])),
    "a negative place": header(lambda e: first(e).update(data_offsets=[-8, 8])),
    "places that overlap": header(overlapping),
    "complex numbers": header(lambda e: first(e).update(dtype="C64")),
    "eighths of numbers": header(lambda e: first(e).update(dtype="F8_E4M3")),
    "double precision": retyped(torch.float64),
    "whole numbers": retyped(torch.int8),
    "a weight too many": tensors(lambda s: s.update(extra=torch.zeros(3))),
    "a weight of two lines": tensors(lambda s: s.update({"a\nb": torch.zeros(3)})),
    "a weight too few": tensors(lambda s: s.pop(next(iter(s)))),
    "weights that are no numbers": set_first(float("nan")),
    "weights without bound": set_first(float("inf")),
    "three hundred folds": many_folds,
    # Zips.
    "a zip that leads out": zip_with(zipfile.ZipInfo("../canary"), b"x"),
    "a zip from the root": zip_with(zipfile.ZipInfo("/tmp/canary"), b"x"),
    "a zip with a link": zip_with(linked_entry(), b"/etc/passwd"),
    "a zip of two model.json": twice,
    "a zip under a password": encrypted,
    "a zip in a zip": zip_in_zip,
    "a zip packed in an unusual way": zipped(method=zipfile.ZIP_LZMA),
    "a zip whose weights explode": bomb(WEIGHTS, 256),
    "a zip whose model.json explodes": bomb("model.json", 100),
    "a zip of a pickle": both(pickled, zipped()),
    "a zip of code": both(net("torch.hub:load", repo_or_dir="bundle", source="local", model="model"), zipped()),
}
