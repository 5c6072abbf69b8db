"""`training.init` from a model of nnU-Net."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nnunet_fixtures import FIXTURES, folder_of

from medseg.config import load_config
from medseg.errors import CheckpointError, ConfigError
from medseg.nets import build_net
from medseg.training.init_weights import initial_names, initialise
from medseg.training.kept_labels import kept_info

SIZE = {"channels": (3, 5, 5), "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)), "decoder_convs": (1, 1)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_training_starts_from_a_folder_or_zip_of_nnunet(zipped: bool, tmp_path: Path) -> None:
    """Two channels instead of one, and one label instead of two: the first layer is adapted, the last begins anew."""
    place = FIXTURES / "small" / "model.zip" if zipped else folder_of("small", tmp_path / "model")
    net = build_net("nnunet_plain", dims=3, in_channels=2, out_channels=2, **SIZE)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    report = initialise(net, place)
    first, last = "encoder.stages.0.0.convs.0.conv.weight", "decoder.seg_layers.1.weight"
    assert first in report.adapted and last in report.adapted and not report.missing
    assert len(report.loaded) > 30 and set(initial_names(place)) >= {first, last}
    assert not torch.equal(net.state_dict()[first], before[first])
    assert torch.equal(net.state_dict()[last], before[last])


def test_of_another_network_the_name_of_the_models_own_is_told(tmp_path: Path) -> None:
    net = build_net("unet", dims=3, in_channels=1, out_channels=3)
    with pytest.raises(CheckpointError, match=r"its network is net\.name=nnunet_plain"):
        initialise(net, FIXTURES / "small" / "model.zip")


def test_labels_cannot_be_added_to_what_no_training_prepares(tiny_dataset: Path, tmp_path: Path) -> None:
    init = {"training.init": str(FIXTURES / "small" / "model.zip"), "training.keep_classes": True}
    with pytest.raises(ConfigError, match="crops images to their nonzero voxels"):
        kept_info(load_config(tiny_dataset / "config.yaml", init))
