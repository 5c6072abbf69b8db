"""Public data sets, as they are downloaded, in the layout that the pipelines read: `images/` and `labels/`.

    python pipelines/layouts/arrange.py chase    CHASE_DB1        out    # 20 retinal photographs, first observer
    python pipelines/layouts/arrange.py vessel3d vessel3d_ct_aorta out   # ct_cropped and the mask named by --mask
    python pipelines/layouts/arrange.py brats2013 BRATS           out    # FLAIR and T1c of each patient
    python pipelines/layouts/arrange.py patches  val_patches.h5   out    # MSD lung tumour patches; needs h5py

Cases are named `<patient>__<number>`, so that all of a patient stay on one side of a split. Nothing is resampled.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import medseg


def chase(data: Path, out: Path, mask: str) -> None:
    """Image_01L.jpg with Image_01L_1stHO.png: both eyes of a child are one patient."""
    for image in sorted(data.glob("*.jpg")):
        name = f"{image.stem[:-1]}__{image.stem[-1]}"
        medseg.write(medseg.read(image), out / "images" / f"{name}.png")
        write_mask(medseg.read(image.with_name(f"{image.stem}_1stHO.png")), out / "labels" / f"{name}.png")


def vessel3d(data: Path, out: Path, mask: str) -> None:
    """A folder that holds one CT and a mask per vessel."""
    medseg.write(medseg.read(data / "ct_cropped.nii.gz"), out / "images" / f"{mask}.nii.gz")
    write_mask(medseg.read(data / f"{mask}.nii.gz"), out / "labels" / f"{mask}.nii.gz")


def brats2013(data: Path, out: Path, mask: str) -> None:
    """A folder per patient. Label values stay: 1 necrosis, 2 oedema, 3 non-enhancing, 4 enhancing tumour."""
    for patient in sorted(p for p in data.iterdir() if p.is_dir()):
        for channel, file in enumerate(("Flair_subtrMeanDivStd", "T1c_subtrMeanDivStd")):
            image = medseg.read(patient / f"{file}.nii.gz")
            image = image.with_array(image.array.astype(np.float32))
            medseg.write(image, out / "images" / f"{patient.name}_{channel:04d}.nii.gz")
        labels = medseg.read(patient / "OTMultiClass.nii.gz")
        labels = labels.with_array(labels.array.astype(np.uint8))
        medseg.write(labels, out / "labels" / f"{patient.name}.nii.gz")


def patches(data: Path, out: Path, mask: str) -> None:
    """130 patches of 13 patients, ten of each in a row; 48 x 48 pixels of 2 mm, grey values 0 to 1."""
    import h5py

    with h5py.File(data) as file:
        images, labels = file["images"][:, 0], file["labels"][:, 0]
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = f"patient{n // 10 + 1:02d}__{n % 10}.png"
        grey = np.round(255 * image).astype(np.uint8)
        flat = medseg.Volume(grey, np.eye(4), spacing_known=False)
        medseg.write(flat, out / "images" / name)
        medseg.write(flat.with_array(label.astype(np.uint8)), out / "labels" / name)


def write_mask(volume: medseg.Volume, path: Path) -> None:
    """0 and 1, whatever the file held: 0 and 1, or 0 to 255 with soft edges."""
    grey = volume.array[0] if volume.channels else volume.array
    inside = grey > (127 if grey.max() > 2 else 0)
    medseg.write(volume.with_array(inside.astype(np.uint8)), path)


LAYOUTS = {"chase": chase, "vessel3d": vessel3d, "brats2013": brats2013, "patches": patches}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mask", default="aorta", help="vessel3d: which mask")
    arguments = parser.parse_args()
    LAYOUTS[arguments.layout](arguments.data, arguments.out, arguments.mask)
