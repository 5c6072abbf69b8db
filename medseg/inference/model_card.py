"""The model card: what a bundle is, in words, for whoever finds the folder."""

from __future__ import annotations

import json
from collections.abc import Sequence

from medseg.inference.bundle_info import BundleInfo

__all__ = ["model_card"]


def model_card(info: BundleInfo, weight_files: Sequence[str]) -> str:
    """Markdown for `README.md` of a bundle.

    Args:
        info: contents of `model.json`.
        weight_files: names of the weight files.
    """
    plan, net, made = info.plan, info.net, info.provenance
    spacing = "pixels" if plan.spacing_mm is None else " x ".join(f"{s:g}" for s in plan.spacing_mm) + " mm"
    windows = " x ".join(map(str, plan.patch_size))
    labels = "\n".join(
        f"| {name} | {value if isinstance(value, int) else list(value)} |" for name, value in info.labels.items()
    )
    backbone = f", backbone {net.backbone}" if net.backbone else ""
    scores = "\n".join(f"- {name}: `{json.dumps(value)}`" for name, value in sorted(info.scores.items())) or (
        "- none: all cases trained" if info.folds == "all" else "- none recorded"
    )
    folds = "one network, trained on all cases" if info.folds == "all" else "one network per fold"
    stored = f", {info.network.precision}" if info.network.precision else ""
    mirrored = "".join(f"\n- axis {each.axis} is not mirrored: {each.reason}" for each in plan.unmirrored or ())
    source = info.source
    imported = "" if source.kind == "medseg" else f"\n- imported from {source.kind}: {source.licence}"
    parity = info.network.parity
    exported, files = "", "weights"
    if parity is not None:
        compared = "windows of training cases" if parity.seen == "cases" else "windows of noise"
        files = "networks"
        exported = (
            f"\n- exported as {info.network.format} for windows of this size, from the model {source.hash[:12]}; on "
            f"{parity.windows} {compared} its probabilities differ by {parity.probability:.1e} at most, and "
            f"{parity.changed:.3%} of the voxels get another label"
        )
    dataset = "\n".join(f"- {name}: {json.dumps(value)}" for name, value in made.dataset.items()) or "- not described"
    return f"""# Segmentation model

Made by medseg {made.medseg or "(unknown version)"} with torch {made.torch or "(unknown version)"}.
Research software, not a medical device.

| label | value |
|---|---|
{labels}

## Use

    medseg predict THIS_FOLDER studies/ -o masks/

## Network

- {net.name}{backbone}, {net.dims}D, {net.in_channels} image channel(s), {net.out_channels} output channels
- grid: {spacing}, orientation {plan.orientation or "as stored"}, windows of {windows} voxels{mirrored}
- {made.iterations} iterations, {made.seconds:.0f} s of training, configuration {made.config_hash[:12] or "unknown"}
- {files} ({folds}{stored}): {", ".join(sorted(weight_files))}{exported}

## Training data

{dataset}

## Scores on validation cases

{scores}

## Licences

- training data: {info.data_license}
- weights: {info.weight_license}{imported}
"""
