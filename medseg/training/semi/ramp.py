"""The weight of the loss on unlabelled images, which rises while the labels of the teacher become better."""

from __future__ import annotations

import math

__all__ = ["ramp_up"]


def ramp_up(progress: float, length: float) -> float:
    """exp(-5 (1 - t)^2) with t = progress / length, 1 from there on.

    Args:
        progress: of the training since unlabelled images count, 0 to 1.
        length: share of the training in which the weight rises; 0: it is 1 from the start.

    Source:
        Laine & Aila, Temporal Ensembling, ICLR 2017, section 3; Tarvainen & Valpola, NeurIPS 2017, section 3.

    Example:
        >>> round(ramp_up(0.0, 0.5), 4), round(ramp_up(0.25, 0.5), 4), ramp_up(0.75, 0.5)
        (0.0067, 0.2865, 1.0)
    """
    return 1.0 if progress >= length else math.exp(-5 * (1 - progress / length) ** 2)
