"""LinkNet: the sums of figure 1, and an option for weights that were trained on other grey levels."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from medseg.nets.linknet import LinkNet


def test_each_map_of_the_encoder_is_added_to_that_of_the_decoder():
    """Worked out layer by layer from the weights alone."""
    torch.manual_seed(0)
    net = LinkNet(2, 1, 3).eval()
    image = torch.randn(1, 1, 64, 96)
    weights = net.state_dict()

    def layer(x, name, norm=1, **options):
        x = F.conv2d(x, weights[f"{name}.0.weight"], weights.get(f"{name}.0.bias"), **options)
        return F.instance_norm(x) if norm else x

    def block(x, name, stride):
        w = weights
        y = F.instance_norm(F.conv2d(x, w[f"{name}.double_conv.0.weight"], stride=stride, padding=1)).relu()
        y = F.instance_norm(F.conv2d(y, w[f"{name}.double_conv.3.weight"], padding=1))
        return (y + (layer(x, f"{name}.downsample", stride=stride) if stride == 2 else x)).relu()

    def down(x, name, stride):
        return block(block(x, f"{name}.block1", stride), f"{name}.block2", 1)

    def up(x, name, stride):
        x = layer(x, f"{name}.conv1").relu()
        x = F.conv_transpose2d(
            x, weights[f"{name}.tp_conv.0.weight"], stride=stride, padding=1, output_padding=stride - 1
        )
        return layer(F.instance_norm(x).relu(), f"{name}.conv2").relu()

    a = F.max_pool2d(layer(image, "init", stride=2, padding=3).relu(), 3, 2, 1)
    b = down(a, "down0", 1)
    c = down(b, "down1", 2)
    d = down(c, "down2", 2)
    x = up(down(d, "down3", 2), "up0", 2) + d
    x = up(up(x, "up1", 2) + c, "up2", 2) + b
    x = up(x, "up3", 1) + a
    x = F.conv_transpose2d(
        x, weights["tp_conv1.0.weight"], weights["tp_conv1.0.bias"], stride=2, padding=1, output_padding=1
    )
    x = layer(F.instance_norm(x).relu(), "conv", padding=1).relu()
    expected = F.conv_transpose2d(x, weights["tp_conv2.weight"], weights["tp_conv2.bias"], stride=2)
    with torch.no_grad():
        torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-4)


def test_grey_levels_are_scaled_and_shifted_before_the_first_layer():
    torch.manual_seed(0)
    plain = LinkNet(3, 1, 2, width=0.25).eval()
    scaled = LinkNet(3, 1, 2, width=0.25, input_scale=0.226, input_shift=0.449).eval()
    scaled.load_state_dict(plain.state_dict())
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(scaled(image), plain(0.226 * image + 0.449))
