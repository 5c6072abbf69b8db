"""One slice in four windows.

A CT has more grey values than a screen. A window maps a range of Hounsfield units to black ... white:
everything below is black, everything above is white. What one window hides, another shows.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import medseg
from medseg.phantoms import make_phantom
from medseg.windowing import PRESETS


def draw(path: Path) -> None:
    """Write the picture."""
    image, labels = make_phantom(9)
    k = int(np.argmax((labels.array == 2).sum(axis=(0, 1))))
    figure, panels = plt.subplots(2, 2, figsize=(6.4, 6.4), layout="constrained")
    for panel, name in zip(panels.flat, ("lung", "soft_tissue", "bone", "mediastinum"), strict=True):
        preset = PRESETS[name]
        panel.imshow(medseg.window(image, name).array[:, :, k].T, cmap="gray", vmin=0, vmax=1)
        panel.set_title(f"{name}: centre {preset.center_hu:g}, width {preset.width_hu:g} HU", fontsize=10)
        panel.set_axis_off()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parent / "pictures" / "windows.png")
