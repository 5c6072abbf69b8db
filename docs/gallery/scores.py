"""What Dice, HD95 and NSD see.

Four wrong masks of the same disc. A mask that is a little too large everywhere and one that lacks a piece can
have the same Dice. A stray speck far away costs Dice nearly nothing and is the worst of all for HD95 once it
has more than 5 % of the outline. NSD counts the share of both outlines that lies within the tolerance, here 2
mm.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from medseg.metrics import score_case


def disc(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    """A disc on a grid of 80 x 80 pixels of 1 mm."""
    i, j = np.mgrid[:80, :80]
    return np.asarray((i - x) ** 2 + (j - y) ** 2 <= radius**2)


def draw(path: Path) -> None:
    """Write the picture."""
    reference = disc(36, 40, 18)
    masks = {
        "1 mm too large": disc(36, 40, 19),
        "3 mm too large": disc(36, 40, 21),
        "a piece is missing": reference & ~disc(20, 40, 9),
        "a speck far away": reference | disc(72, 70, 3),
    }
    figure, panels = plt.subplots(2, 2, figsize=(6.4, 7), layout="constrained")
    for panel, (title, mask) in zip(panels.flat, masks.items(), strict=True):
        values = score_case(
            mask.astype(np.uint8),
            reference.astype(np.uint8),
            spacing_mm=(1.0, 1.0),
            labels=(1,),
            metrics=("dice", "hd95", "nsd"),
        )[1]
        panel.imshow(mask.T, cmap="Blues", vmin=0, vmax=2)
        panel.contour(reference.T, levels=[0.5], colors="black", linewidths=1.2)
        text = f"Dice {values['dice']:.2f}, HD95 {values['hd95']:.1f} mm, NSD {values['nsd']:.2f}"
        panel.set_title(f"{title}\n{text}", fontsize=10)
        panel.set_axis_off()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parent / "pictures" / "scores.png")
