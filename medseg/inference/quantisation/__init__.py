"""INT8: a network's weights and activations as 8-bit integers, with the layers that cost Dice left in float.

Arithmetic: y = scale * (q - zero), with ranges of the activations measured on windows of real cases, and a scale for
each channel of a weight (Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, 2018).
"""

from medseg.inference.quantisation.quantise import Int8Network, quantised

__all__ = ["Int8Network", "quantised"]
