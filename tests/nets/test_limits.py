"""Options that no network has are refused before anything is built of them."""

from __future__ import annotations

import time

import pytest

from medseg.errors import ConfigError
from medseg.nets import build_net

FIXED = {"dims": 3, "in_channels": 1, "out_channels": 2}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"channels": [8] * 17}),
        ("unet", {"channels": [16385, 8]}),
        ("unet", {"channels": [float("nan"), 8]}),
        ("unet", {"norm": {"name": "instance"}}),
        ("unet", {"strides": [[[[1]]]]}),
        ("unet", {"width": 65.0}),
        ("unet", {"width": float("inf")}),
        ("unet_residual", {"blocks": [200, 200]}),
        ("nnunet_plain", {"convs": [2, 10**3]}),
        ("nnunet_plain", {"decoder_convs": [10**4]}),
        ("nnunet_resenc", {"blocks": [1, 256]}),
        ("nnunet_resenc", {"stem_channels": 10**6}),
        ("deeplabv2", {"scales": [3.0]}),
        ("deeplabv3", {"rates": list(range(1, 18))}),
        ("monai_swinunetr", {"window": 17}),
        ("monai_segresnet", {"channels": 10**30}),
        ("enet", {"in_channels": 10**6}),
        ("fcn8s", {"out_channels": 10**6}),
    ],
)
def test_an_option_beyond_every_use_is_named(name, options):
    started = time.process_time()
    with pytest.raises(ConfigError, match=f"{name}: option '{next(iter(options))}'"):
        build_net(name, **{**FIXED, **options})
    assert time.process_time() - started < 1
