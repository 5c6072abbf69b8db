"""Each change of grey levels and colours by itself, and samples that are mixed.

The strengths are large, so that they can be seen. A random window and changes of colour act on the grey levels as
they are stored, all others on the normalised image. CutMix exchanges a box of image and labels between the samples
of a batch, MixUp blends two of them, with the labels of both.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import medseg
from medseg.augmentation import CHANGES, BatchMixing, DrawnChange, MixParams
from medseg.config import AugmentationConfig
from medseg.phantoms import make_phantom, make_retina

STRENGTHS = {
    "noise": 0.1,
    "blur": 1.5,
    "sharpen": 1.5,
    "brightness": 0.6,
    "contrast": 1.6,
    "gamma": 2.0,
    "low_resolution": 0.3,
    "bias_field": 0.8,
    "random_window": 0.6,
}
COLOURS = {"hue": 0.15, "saturation": 2.0}


def changed(name: str, image: torch.Tensor, strength: float) -> torch.Tensor:
    """An image after one change."""
    (settings,) = AugmentationConfig(extra=[{"name": name}]).extra
    drawn = DrawnChange((strength,) * len(image), variant=3, shifts=(0.1,) * len(image))
    return CHANGES[name](settings).apply(image.clone(), drawn)


def chest(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A slice of a synthetic chest, (1, I, J), and its labels."""
    volume, labels = make_phantom(seed)
    k = int(np.argmax((labels.array == 2).sum(axis=(0, 1))))
    image = medseg.window(volume, center=-200, width=1600).array[None, :58, :58, k]
    return torch.tensor(image), torch.tensor(labels.array[None, :58, :58, k].astype(np.int64))


def draw(path: Path) -> None:
    """Write the picture."""
    (image, mask), (other, other_mask) = chest(9), chest(3)
    retina = torch.tensor(np.moveaxis(make_retina(1)[0], -1, 0) / np.float32(255))
    images, masks = torch.stack([image, other]), torch.stack([mask, other_mask])
    mixing = BatchMixing(AugmentationConfig())
    box = tuple((n // 2, n - n // 8) for n in image.shape[1:])
    cut = mixing.apply(images, masks, MixParams(box=box))
    blend = mixing.apply(images, masks, MixParams(share=0.6))
    shown = {"as it is": (image, [mask])}
    shown |= {name.replace("_", " "): (changed(name, image, each), [mask]) for name, each in STRENGTHS.items()}
    shown |= {"CutMix": (cut.images[0], [cut.labels[0]]), "MixUp": (blend.images[0], [mask, other_mask])}
    shown |= {"a photograph": (retina, [])} | {name: (changed(name, retina, s), []) for name, s in COLOURS.items()}
    figure, panels = plt.subplots(3, 5, figsize=(9, 6), layout="constrained")
    for panel, (name, (levels, outlines)) in zip(panels.flat, shown.items(), strict=True):
        pixels = np.moveaxis(levels.numpy(), 0, -1).swapaxes(0, 1).clip(0, 1)
        panel.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=1)
        for each, style in zip(outlines, ("solid", "dotted"), strict=False):
            for value, colour in ((1, "deepskyblue"), (2, "orange")):
                panel.contour(each[0].T.numpy() == value, levels=[0.5], colors=colour, linewidths=1, linestyles=style)
        panel.set_title(name, fontsize=9)
        panel.set_axis_off()
    figure.savefig(path, dpi=62)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parent / "pictures" / "changes.png")
