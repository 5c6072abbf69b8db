"""Random changes of a training sample.

Image and labels are moved by the same field, drawn once: rotation, scale, elastic deformation, mirroring and
cropping are one resampling. Grey levels change afterwards, and labels do not. Each draw can be repeated, so
any sample of a training can be looked at.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import medseg
from medseg.augmentation import IntensityAugment, SpatialAugment
from medseg.phantoms import make_phantom


def draw(path: Path) -> None:
    """Write the picture."""
    volume, labels = make_phantom(9)
    k = int(np.argmax((labels.array == 2).sum(axis=(0, 1))))
    image = torch.tensor(medseg.window(volume, center=-200, width=1600).array[None, :, :, k])
    mask = torch.tensor(labels.array[None, :, :, k].astype(np.int64))
    spatial = SpatialAugment(dims=2, elastic_probability=1, probability=1)
    intensity = IntensityAugment(noise_probability=0.5, blur_probability=0.5, gamma_probability=0.5)
    rng = np.random.default_rng(4)
    figure, panels = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
    for n, panel in enumerate(panels.flat):
        grey, drawn = image, mask
        if n:
            grey, drawn = spatial.apply(image, mask, spatial.draw(rng, image.shape[1:]))
            grey = intensity.apply(grey, intensity.draw(rng, channels=1))
        panel.imshow(grey[0].T.numpy(), cmap="gray", vmin=0, vmax=1)
        panel.contour(drawn[0].T.numpy() == 1, levels=[0.5], colors="deepskyblue", linewidths=1)
        panel.contour(drawn[0].T.numpy() == 2, levels=[0.5], colors="orange", linewidths=1.5)
        panel.set_title(f"sample {n}" if n else "as it is", fontsize=10)
        panel.set_axis_off()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parent / "pictures" / "augmentation.png")
