"""`pipelines/stream.py`: a folder, a DICOM clip and a video become the masks that `predict` gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from inference_bundles import make_info, make_plan
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

import medseg
from medseg.inference import save_bundle
from medseg.preparation.plan import ChannelPlan
from medseg.volume import Volume

PIPELINE = Path(__file__).resolve().parents[2] / "pipelines" / "stream.py"


def bundle(path: Path, channels: int) -> Path:
    """A U-Net with random weights whose first logit is raised, so that both labels occur."""
    window = ChannelPlan(kind="window", low=0, high=255, mean=100.0, std=80.0)
    info = make_info(
        make_plan(
            dims=2,
            orientation=None,
            spacing_mm=None,
            patch_size=(32, 32),
            strides=((1, 1), (2, 2)),
            in_channels=channels,
            normalization=(window,) * channels,
        )
    )
    import torch

    torch.manual_seed(0)
    return save_bundle(path, info, {0: info.net.build().state_dict()})


def clip(number: int = 6) -> np.ndarray[Any, Any]:
    """A bright disc that moves over a dark ground: (frames, rows, columns), 8 bits."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack(
        [np.where((rows - 24) ** 2 + (columns - 15 - 4 * n) ** 2 < 90, 220, 30).astype(np.uint8) for n in range(number)]
    )


def start(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PIPELINE), *map(str, arguments)]
    known = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=300, check=False)


def expected(model: medseg.inference.Model, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows and columns of the mask of a picture that `predict` gives."""
    volume = Volume(rows.T, np.eye(4), 3 if rows.ndim == 3 else 0, spacing_known=False)
    return model.predict(volume, mirror=False).array.T


def written(folder: Path, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(medseg.read(folder / f"{name}.png").array.T)


def test_the_pictures_of_a_folder_get_their_masks_under_their_names_in_natural_order(tmp_path: Path) -> None:
    model = bundle(tmp_path / "model", 1)
    for n, frame in enumerate(clip()):
        medseg.write(Volume(frame.T, np.eye(4), spacing_known=False), tmp_path / "in" / f"view_{n + 7}.png")
    done = start(model, tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 frames, ") and "frames/s" in done.stdout
    loaded = medseg.load_model(model, "cpu")
    masks = [written(tmp_path / "out", f"view_{n + 7}") for n in range(6)]
    for mask, frame in zip(masks, clip(), strict=True):
        np.testing.assert_array_equal(mask, expected(loaded, frame))
    assert len({mask.tobytes() for mask in masks}) > 1


def test_the_frames_of_a_dicom_clip_get_their_masks(tmp_path: Path) -> None:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UltrasoundMultiFrameImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = generate_uid(), generate_uid(), "US"
    data.NumberOfFrames, data.Rows, data.Columns = clip().shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = clip().tobytes()
    data["PixelData"].VR = "OB"
    pydicom.dcmwrite(tmp_path / "clip.dcm", data, enforce_file_format=True)
    model = bundle(tmp_path / "model", 1)
    done = start(model, tmp_path / "clip.dcm", "--out", tmp_path / "out", "--overlay")
    assert done.returncode == 0, done.stderr
    loaded = medseg.load_model(model, "cpu")
    for n, frame in enumerate(clip()):
        shown, mask = medseg.read(tmp_path / "out" / f"frame_{n:06d}.png"), expected(loaded, frame)
        coloured = np.ptp(shown.array, axis=0).T > 0
        np.testing.assert_array_equal(coloured, mask > 0)


def video(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for frame in clip():
        writer.write(np.stack([frame, frame // 2, 255 - frame], axis=2))
    writer.release()
    return path


def decoded(path: Path) -> list[np.ndarray[Any, Any]]:
    found, frames = cv2.VideoCapture(str(path)), []
    while True:
        more, frame = found.read()
        if not more:
            return frames
        frames.append(frame)


def test_the_frames_of_a_video_get_their_masks_in_red_green_blue(tmp_path: Path) -> None:
    model, source = bundle(tmp_path / "model", 3), video(tmp_path / "clip.avi")
    done = start(model, source, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    loaded = medseg.load_model(model, "cpu")
    frames = decoded(source)
    assert len(frames) == 6
    for n, frame in enumerate(frames):
        np.testing.assert_array_equal(written(tmp_path / "out", f"frame_{n:06d}"), expected(loaded, frame[..., ::-1]))


def test_a_grey_model_takes_a_video_and_writes_a_video(tmp_path: Path) -> None:
    done = start(bundle(tmp_path / "model", 1), video(tmp_path / "clip.avi"), "--out", tmp_path / "out.avi")
    assert done.returncode == 0, done.stderr
    assert [frame.shape for frame in decoded(tmp_path / "out.avi")] == [(48, 64, 3)] * 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.avi", "model", "out.avi"]


def test_a_fast_camera_drops_frames_and_says_so(tmp_path: Path) -> None:
    for n in range(40):
        medseg.write(Volume(clip(1)[0].T, np.eye(4), spacing_known=False), tmp_path / "in" / f"{n}.png")
    done = start(bundle(tmp_path / "model", 1), tmp_path / "in", "--out", tmp_path / "out", "--camera", 1000)
    assert done.returncode == 0, done.stderr
    assert "dropped because" in done.stdout
    assert len(list((tmp_path / "out").iterdir())) == int(done.stdout.split()[0]) < 40


def test_what_cannot_be_streamed_is_one_line_with_its_exit_code(tmp_path: Path) -> None:
    model = bundle(tmp_path / "model", 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    medseg.write(Volume(clip(1)[0].T, np.eye(4), spacing_known=False), tmp_path / "grey" / "a.png")
    # A module of that name that cannot be loaded stands for one that is not installed.
    (tmp_path / "without" / "cv2").mkdir(parents=True)
    (tmp_path / "without" / "cv2" / "__init__.py").write_text("raise ImportError('not installed')")
    paths = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])
    for source, out, code, words, more in (
        ("empty", "o1", 3, "contains no pictures", {}),
        ("none.mp4", "o1", 3, "does not exist", {}),
        ("text.mp4", "o1", 3, "text.mp4 ", {}),
        ("grey", "o1", 3, "the model expects 3", {}),
        ("grey", "full", 6, "not empty", {}),
        ("grey", "o.mov", 2, ".mp4 or .avi", {}),
        ("text.mp4", "o1", 6, "'.[video]'", {"PYTHONPATH": paths}),
    ):
        done = start(model, tmp_path / source, "--out", tmp_path / out, **more)
        assert done.returncode == code and words in done.stderr, (source, done.returncode, done.stderr)
        assert done.stderr.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("rate", ["0", "-1", "nan"])
def test_an_impossible_rate_is_a_usage_error(tmp_path: Path, rate: str) -> None:
    done = start(tmp_path / "model", tmp_path, "--out", tmp_path / "out", "--camera", rate)
    assert done.returncode == 2 and "--camera" in done.stderr
