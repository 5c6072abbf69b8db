"""A synthetic chest CT and its labels, in three planes.

Every sample of medseg is drawn from ellipsoids, tubes and filtered noise. Lung and tumour are built so that
no single threshold finds them: the air around the patient is as dark as the lung, and heart and vessels are
as bright as the tumour.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import medseg
from medseg.phantoms import make_phantom


def draw(path: Path) -> None:
    """Write the picture."""
    image, labels = make_phantom(9)
    grey = medseg.window(image, center=-200, width=1600).array
    tumour = np.argwhere(labels.array == 2).mean(axis=0).round().astype(int)
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    # The array's axes point to the left, to the back and to the head (LPS).
    for axis, (panel, title) in enumerate(zip(panels, ("sagittal", "coronal", "axial"), strict=True)):
        plane, mask = (np.take(array, tumour[axis], axis=axis).T for array in (grey, labels.array))
        across, down = (s for a, s in enumerate(image.spacing_mm) if a != axis)
        panel.imshow(plane, cmap="gray", vmin=0, vmax=1, aspect=down / across, origin="upper" if axis == 2 else "lower")
        panel.contour(mask == 1, levels=[0.5], colors="deepskyblue", linewidths=1)
        panel.contour(mask == 2, levels=[0.5], colors="orange", linewidths=1.5)
        panel.set_title(title)
        panel.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parent / "pictures" / "phantom.png")
