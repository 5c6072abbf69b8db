"""What tells the volumes of one series apart: gradients, kernels, descriptions, dimension indices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, write_study
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medseg.errors import MedsegError
from medseg.io import read, read_all

FIELD = Path(__file__).parents[4] / "shared" / "field"
PLAIN = Phantom()
MR = Phantom(modality="MR", slopes=None, stored="uint16", offset=700.0)
NUMBERS = np.random.default_rng(5).permutation(12) + 1
APART = {
    "kernels": (PLAIN, lambda n: {"ConvolutionKernel": ("B30f", "B70f")[n]}),
    "kernels of two parts": (PLAIN, lambda n: {"ConvolutionKernel": [("Br40", "Br64")[n], "3"]}),
    "descriptions": (PLAIN, lambda n: {"SeriesDescription": ("40 keV", "70 keV")[n]}),
    "tube_voltages": (PLAIN, lambda n: {"KVP": ("80", "140")[n]}),
    "inversion_times": (MR, lambda n: {"InversionTime": str(300.0 * (n + 1))}),
    "flip_angles": (MR, lambda n: {"FlipAngle": str(5.0 * (n + 1))}),
    "components": (MR, lambda n: {"ComplexImageComponent": ("MAGNITUDE", "REAL")[n]}),
    "gradient_directions": (
        MR,
        lambda n: {"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": [n, 1.0 - n, 0.0]},
    ),
    "time_points": (PLAIN.but(modality="PT"), lambda n: {"FrameReferenceTime": str(30000 * n + 15000)}),
}


@pytest.mark.parametrize("name", APART)
def test_two_volumes_in_one_series_are_told_apart_by_what_differs(tmp_path, name):
    phantom, tags = APART[name]
    pair = [
        phantom.but(offset=phantom.offset + 300 * n, tags=tags(n), numbers=tuple(NUMBERS[6 * n : 6 * n + 6]))
        for n in (0, 1)
    ]
    write_study(tmp_path, *pair)
    with pytest.raises(MedsegError, match="contains 2 volumes"):
        read(tmp_path)
    volumes = read_all(tmp_path)
    assert len(volumes) == 2
    for phantom in pair:
        assert "" in [phantom.truth().faults(volume) for volume in volumes]
    assert all(name.split()[0] in [f.kind for f in volume.findings] for volume in volumes)


def diffusion(path, gradients, dimensions=False, groups=True):
    """An enhanced MR file with a volume per gradient (None: b = 0)."""
    volumes = [MR.but(offset=700.0 + 100 * n) for n in range(len(gradients))]
    write_enhanced(path, *volumes)
    data = pydicom.dcmread(path)
    for group in data.PerFrameFunctionalGroupsSequence:
        content = group.FrameContentSequence[0]
        n = content.TemporalPositionIndex - 1
        del content.TemporalPositionIndex
        content.DimensionIndexValues = [1, content.InStackPositionNumber, n + 1]
        item, direction = Dataset(), Dataset()
        item.DiffusionBValue = 0.0 if gradients[n] is None else 1000.0
        if gradients[n] is not None and groups:
            direction.DiffusionGradientOrientation = gradients[n]
            item.DiffusionGradientDirectionSequence = Sequence([direction])
        group.MRDiffusionSequence = Sequence([item])
    if dimensions:
        data.DimensionIndexSequence[2].DimensionIndexPointer = pydicom.datadict.tag_for_keyword(
            "DiffusionGradientOrientation"
        )
    else:
        del data.DimensionIndexSequence
    data.save_as(path)
    return [v.truth() for v in volumes]


GRADIENTS = [None, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(("dimensions", "groups"), [(False, True), (True, False)])
def test_enhanced_diffusion_is_told_apart_by_gradient_or_dimension_index(tmp_path, dimensions, groups):
    truths = diffusion(tmp_path / "a.dcm", GRADIENTS, dimensions, groups)
    volumes = read_all(tmp_path)
    assert len(volumes) == 4
    for truth in truths:
        assert "" in [truth.faults(volume) for volume in volumes]


def test_the_enhanced_diffusion_of_the_field_holds_four_volumes():
    if not FIELD.is_dir():
        pytest.skip("the shared field inputs are not on this machine")
    volumes = read_all(FIELD / "enhanced_dwi")
    assert [volume.shape for volume in volumes] == [(16, 16, 4)] * 4
    assert len({volume.array.tobytes() for volume in volumes}) == 4


@pytest.mark.parametrize("tag", ["MOSAIC", "UIH"])
def test_tiled_images_are_named_by_their_maker(tmp_path, tag):
    def change(data, k):
        if tag == "MOSAIC":
            data.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
        else:
            data.Manufacturer = "UIH"
            data.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "16")

    write_study(tmp_path, MR.but(shape=(18, 14, 1), change=change))
    with pytest.raises(MedsegError, match={"MOSAIC": "Siemens mosaic", "UIH": "UIH grid of 16"}[tag]) as caught:
        read(tmp_path)
    assert caught.value.kind == "mosaic"


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7])
def test_a_gap_is_a_missing_slice_however_few_slices_there_are(tmp_path, count):
    depths = [2.5 * k for k in range(count - 1)] + [2.5 * count]
    phantom = PLAIN.but(shape=(9, 7, count), depths=tuple(depths))
    write_study(tmp_path, phantom)
    with pytest.raises(MedsegError, match=r"1 slice\(s\) missing: the usual step is 2\.500 mm") as caught:
        read(tmp_path)
    assert caught.value.kind == "missing_slices"
    volume = read(tmp_path, irregular="resample")
    assert volume.shape == (9, 7, count + 1)
    assert phantom.worst(volume) <= 1.001


def test_a_description_is_not_quoted_in_findings(tmp_path):
    pair = [PLAIN.but(offset=1000.0 + 300 * n, tags={"SeriesDescription": f"Secret {n}"}) for n in (0, 1)]
    write_study(tmp_path, *pair)
    texts = [finding.message for volume in read_all(tmp_path) for finding in volume.findings]
    assert any("description 2 of 2" in text for text in texts)
    assert not any("Secret" in text for text in texts)
