"""The 3D view: what goes into the page, and what is refused."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import ConfigError
from medseg.evaluation import evaluate
from medseg.io import write
from medseg.reports.view3d import layers_of, niivue_script
from medseg.volume import Volume

AFFINE = np.diag([-0.8, -0.8, 2.0, 1.0])


def _shown(content: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def test_large_volumes_become_small_ones_at_the_same_place_and_thin_labels_stay() -> None:
    labels = np.zeros((300, 40, 20), np.uint8)
    labels[100, 7, 3:9] = 2
    image = Volume(np.arange(labels.size, dtype=np.float32).reshape(labels.shape), AFFINE)
    reference = image.with_array(labels)
    grey, ref, pred = layers_of(image, reference, image.with_array(0 * labels), ("#112233", "#445566"))
    assert [layer.name for layer in (grey, ref, pred)] == ["image", "reference", "prediction"]
    assert (grey.colour, ref.colour, pred.colour) == ("", "#112233", "#445566")
    shown = _shown(ref.content)
    assert shown.shape == _shown(grey.content).shape == (100, 14, 7)
    # Every third voxel is taken, and a block is labelled where any of its voxels is.
    assert np.argwhere(np.asarray(shown.dataobj)).tolist() == [[33, 2, 1], [33, 2, 2]]
    assert np.allclose(shown.affine, AFFINE @ np.diag([3, 3, 3, 1]))
    assert not np.asarray(_shown(pred.content).dataobj).any()
    assert np.asarray(_shown(grey.content).dataobj).max() == 255


def test_without_an_image_there_are_two_layers() -> None:
    mask = Volume(np.ones((4, 4, 4), np.uint8), AFFINE)
    assert [layer.name for layer in layers_of(None, mask, mask, ("#000000", "#ffffff"))] == ["reference", "prediction"]


def _evaluated(tmp_path: Path, shape: tuple[int, ...], script: Path) -> str:
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 2:5] = 1
    ending = ".nii.gz" if len(shape) == 3 else ".png"
    for folder in ("pred", "ref"):
        volume = Volume(labels, np.eye(4), spacing_known=len(shape) == 3)
        write(volume, tmp_path / folder / f"case{ending}")
    evaluate(tmp_path / "pred", tmp_path / "ref", out=tmp_path / "out", metrics=["dice"], view3d=script)
    return (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_report_holds_script_and_volumes_and_loads_nothing(tmp_path: Path) -> None:
    script = tmp_path / "niivue.umd.js"
    script.write_text('const NVImage = "</script><!--";')
    page = _evaluated(tmp_path, (8, 8, 8), script)
    assert 'const NVImage = "<\\/script><\\!--";' in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    held = [base64.b64decode(text) for text in re.findall(r'base64: "([^"]+)"', page)]
    assert [_shown(content).shape for content in held] == [(8, 8, 8)] * 2


def test_pictures_have_no_3d_view(tmp_path: Path) -> None:
    script = tmp_path / "niivue.umd.js"
    script.write_text("const NVImage = 1;")
    assert "NVImage" not in _evaluated(tmp_path, (8, 8), script)


def test_something_else_than_niivue_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    other = tmp_path / "jquery.js"
    other.write_text("alert(1)")
    with pytest.raises(ConfigError, match=r"jquery.js is not NiiVue; expected dist/niivue.umd.js"):
        evaluate(tmp_path / "no", tmp_path / "no", view3d=other)
    with pytest.raises(ConfigError, match=r"gone.js cannot be read"):
        niivue_script(tmp_path / "gone.js")
    (tmp_path / "binary.js").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no text"):
        niivue_script(tmp_path / "binary.js")
