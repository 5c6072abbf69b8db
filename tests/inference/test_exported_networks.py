"""Networks as ONNX, run by ONNX Runtime and OpenVINO: the probabilities of torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from net_contract import moved
from torch import nn

from medseg.inference.network import Network
from medseg.inference.onnx_network import OnnxNetwork
from medseg.inference.openvino_network import OpenvinoNetwork
from medseg.nets import NETS, build_net
from medseg.nets.instance_norm import InstanceNorm
from medseg.nets.onnx_graph import onnx_graph

ODD_PATCHES = {2: [(63, 65), (95, 71)], 3: [(33, 31, 35), (41, 37, 47)]}
SMALL: dict[str, dict[str, Any]] = {
    name: {"channels": (8, 16, 32)} for name in ("unet", "unet_residual", "nnunet_plain", "nnunet_resenc")
}
# Untrained, its instance norms over the four voxels of its coarsest map turn torch's own rounding into 1e-2.
SMALL["icnet"] = {"width": 0.25, "norm": "batch"}
IN_CHANNELS = 2
ENGINES: dict[str, Callable[[bytes], Network]] = {"onnx": OnnxNetwork, "openvino": OpenvinoNetwork}


def gives_probabilities_of_torch(name: str, dims: int, patch: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    options = SMALL.get(name) or ({} if name == "enet" or name.startswith("monai_") else {"width": 0.25})
    net = moved(build_net(name, dims=dims, in_channels=IN_CHANNELS, out_channels=3, **options)).eval()
    content = onnx_graph(net, IN_CHANNELS, patch)
    windows = torch.randn(3, IN_CHANNELS, *patch)
    with torch.no_grad():
        wanted = net(windows).softmax(1)
    assert wanted.std() > 1e-3, "a network that answers the same everywhere would show nothing"
    for engine, make in ENGINES.items():
        network = make(content)
        # A single window is the size that exporters mistake for a constant.
        for part in (slice(0, 1), slice(1, 3)):
            found = torch.from_numpy(network(windows[part].numpy())).softmax(1)
            assert found.shape == wanted[part].shape
            assert (found - wanted[part]).abs().max() < 1e-3, engine


@pytest.mark.parametrize(("name", "dims"), [("unet", 3), ("nnunet_plain", 2)])
def test_exported_networks_give_the_probabilities_of_torch(name: str, dims: int) -> None:
    gives_probabilities_of_torch(name, dims, ODD_PATCHES[dims][0])


@pytest.mark.slow
@pytest.mark.parametrize("patch", [patch for patches in ODD_PATCHES.values() for patch in patches], ids=str)
@pytest.mark.parametrize("name", list(NETS))
def test_every_network_exports_with_the_probabilities_of_torch(name: str, patch: tuple[int, ...]) -> None:
    gives_probabilities_of_torch(name, len(patch), patch)


def test_instance_norms_are_exported_as_one_operator_on_the_maps_as_they_are() -> None:
    net = build_net("unet", dims=2, in_channels=1, out_channels=2, channels=(4, 8)).eval()
    kinds = Counter(node.op_type for node in onnx.load_from_string(onnx_graph(net, 1, (15, 17))).graph.node)
    assert kinds["InstanceNormalization"] == sum(isinstance(module, InstanceNorm) for module in net.modules())
    assert "Reshape" not in kinds, "runtimes would change the layout of the maps for each"


class Means(nn.Module):
    """An instance norm and a global mean of the same maps."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.InstanceNorm2d) if dims == 2 else (nn.Conv3d, nn.InstanceNorm3d)
        # Channels that a processor's registers hold together, as in networks.
        self.first, self.norm, self.last = convolution(1, 16, 3, padding=1), norm(16), convolution(16, 16, 1)
        self.axes = tuple(range(2, 2 + dims))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.first(image)
        return self.last(self.norm(maps)) + maps.square().mean(self.axes, keepdim=True)


@pytest.mark.parametrize("patch", [(640, 600), (64, 72, 64)])
def test_means_over_many_voxels_keep_their_digits_in_openvino(patch: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = Means(len(patch)).eval().requires_grad_(False)
    image = torch.randn(1, 1, *patch) + 0.5
    network = OpenvinoNetwork(onnx_graph(net, 1, patch))
    found = torch.from_numpy(network(image.numpy()))
    assert (found - net.double()(image.double())).abs().max() < 1e-5


def test_exporting_leaves_the_network_as_it_was() -> None:
    net = build_net("unet", dims=2, in_channels=1, out_channels=2, channels=(4, 8)).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    first = onnx_graph(net, 1, (15, 17))
    assert first == onnx_graph(net, 1, (15, 17)), "the same network gives the same bytes"
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert np.isfinite(OnnxNetwork(first)(np.ones((1, 1, 15, 17), np.float32))).all()
