"""Predicts in an interpreter that cannot import torch and what else training alone needs; run by its path.

python without_torch.py BUNDLE OUT FORMATS SOURCE...
"""

from __future__ import annotations

import sys
from pathlib import Path

BLOCKED = ("torch", "monai", "SimpleITK", "skimage", "safetensors", "matplotlib", "einops")


def main(bundle: Path, out: Path, kind: str, sources: list[str]) -> None:
    """Write the masks of the network that `test_without_torch` stored as weights, computed by numpy alone."""
    for name in BLOCKED:
        sys.modules[name] = None  # type: ignore[assignment]
    import numpy as np

    from medseg.errors import ConfigError, MissingPartError
    from medseg.inference import Model
    from medseg.inference.bundle_json import read_info
    from medseg.inference.device import CPU, device_without_torch, resolve_device
    from medseg.inference.given_networks import GivenNetworks
    from medseg.studies import PredictOptions, predict_studies

    with (bundle / "model.json").open("rb") as file:
        info, _ = read_info(file, bundle)
    weights = np.load(bundle.parent / "weights.npz")

    def network(batch):  # type: ignore[no-untyped-def]
        shape = (1, -1, *[1] * (batch.ndim - 2))
        return weights["slope"].reshape(shape) * batch[:, :1] - weights["bias"].reshape(shape)

    assert device_without_torch("auto") is CPU
    model = Model(info, (network, network), CPU, "0" * 64, GivenNetworks("numpy", {"numpy": np.__version__}))
    options = PredictOptions(format=kind, save_probabilities=True)
    result = predict_studies(model, sources, out, options)
    result.raise_for_failures()
    assert [row.versions["numpy"] for row in result.rows] == [np.__version__] * len(sources)

    def refused(call):  # type: ignore[no-untyped-def]
        try:
            call()
        except (MissingPartError, ConfigError) as error:
            assert "\n" not in str(error)
            sys.stdout.write(f"{error.exit_code}: {error}\n")
        else:
            raise AssertionError("not refused")

    for changes in ({"crf": True}, {"estimate_quality": True}, {"register": True}):
        refused(lambda changes=changes: predict_studies(model, sources, out, PredictOptions(**changes)))
    image = np.zeros((9, 9, 9), np.float32)
    refused(lambda: model.predict(image, np.eye(4), crf=model.info.prediction.crf))
    for name in ("cuda", "cpu", "auto"):
        refused(lambda name=name: resolve_device(name))
    refused(lambda: device_without_torch("cuda"))
    assert not any(sys.modules.get(name) for name in BLOCKED)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
