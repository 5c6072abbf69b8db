"""Two ways to enlarge an image, and why the edges matter.

medseg keeps the outer edges of an image when it changes the spacing: eight voxels of 4 mm become 32 of 1 mm,
over the same 32 mm. Code that keeps the centres of the outermost voxels instead shifts structures by up to
half a voxel, which is enough to spoil a surface distance.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

from medseg.resampling import resample
from medseg.volume import Volume


def draw(path: Path) -> None:
    """Write the picture."""
    values = np.array([0, 0, 1, 1, 1, 0, 0, 0], np.float32)
    coarse = Volume(np.tile(values[:, None, None], (1, 2, 2)), np.diag([4.0, 4.0, 4.0, 1.0]))
    fine = resample(coarse, (1.0, 4.0, 4.0))
    cornered = ndimage.zoom(values, 4, order=1)
    figure, panel = plt.subplots(figsize=(7, 3.2), layout="constrained")
    edges = np.arange(9) * 4.0 - 2.0
    panel.stairs(values, edges, color="0.8", fill=True, label="eight voxels of 4 mm")
    places = fine.affine[0, 3] + np.arange(fine.array.shape[0]) * fine.spacing_mm[0]
    panel.plot(places, fine.array[:, 0, 0], ".-", color="tab:blue", label="edges kept (medseg)")
    panel.plot(places, cornered, ".-", color="tab:red", label="outermost centres kept")
    panel.set(xlabel="mm", ylabel="value", xlim=(-2, 30), ylim=(-0.05, 1.35))
    panel.legend(ncols=3, fontsize=8, loc="upper center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parent / "pictures" / "resampling.png")
