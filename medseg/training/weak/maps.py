"""Where a classifier sees a label: class activation maps and Grad-CAM, over several enlargements of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.nets.blocks import upsample
from medseg.nets.classifier import Classifier, pooled

__all__ = ["WAYS", "cam", "grad_cam"]


@torch.no_grad()
def cam(net: Classifier, image: Tensor, scales: Sequence[float] = (1.0,), mirrored: bool = True) -> Tensor:
    """Class activation maps: the logits of each label at each place, those below 0 being 0.

    Args:
        net: in eval mode.
        image: `(C, I, J[, K])`.
        scales: enlargements whose maps are averaged.
        mirrored: whether each is averaged with that of the image mirrored along the first axis.

    Returns:
        `(labels, I, J[, K])`, 0 or more.

    Source:
        Zhou et al., Learning deep features for discriminative localization, CVPR 2016.
    """

    def maps(x: Tensor) -> Tensor:
        return net.maps(x).relu()

    return _over_scales(maps, image, scales, mirrored)


def grad_cam(net: Classifier, image: Tensor, scales: Sequence[float] = (1.0,), mirrored: bool = True) -> Tensor:
    """Grad-CAM: the features weighted by the mean gradient that the logit of a label has with respect to each.

    Args:
        net, image, scales, mirrored: as for `cam`.

    Returns:
        `(labels, I, J[, K])`, 0 or more.

    Source:
        Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.
    """

    def maps(x: Tensor) -> Tensor:
        with torch.no_grad():
            features = net.features(x)
        with torch.enable_grad():
            features.requires_grad_()
            logits = pooled(net.head(features))[0]
            found = []
            for n in range(len(logits)):
                (gradient,) = torch.autograd.grad(logits[n], features, retain_graph=n + 1 < len(logits))
                weights = gradient.flatten(2).mean(2)[0]
                found.append(torch.einsum("c,c...->...", weights, features[0].detach()).relu())
        return torch.stack(found)[None]

    return _over_scales(maps, image, scales, mirrored)


WAYS = {"cam": (cam,), "grad_cam": (grad_cam,), "both": (cam, grad_cam)}
"""`weak.method` -> what gives the maps; of several the mean counts."""


def _over_scales(maps: Callable[[Tensor], Tensor], image: Tensor, scales: Sequence[float], mirrored: bool) -> Tensor:
    mode = "bilinear" if image.dim() == 3 else "trilinear"
    found = []
    for scale in scales:
        x = image[None]
        if scale != 1:
            size = [max(8, round(n * scale)) for n in image.shape[1:]]
            x = F.interpolate(x, size, mode=mode, align_corners=False)
        for flipped in (False, True) if mirrored else (False,):
            each = maps(x.flip(2) if flipped else x)
            found.append(upsample(each.flip(2) if flipped else each, image.shape[1:])[0])
    return torch.stack(found).mean(0)
