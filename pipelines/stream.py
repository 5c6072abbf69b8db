"""Frames: from a folder of pictures, an ultrasound clip or a video to a mask for every frame, with frames per second.

Why: beside a scanner or an endoscope a mask is of use only while the frame is on the screen. `model.stream()` reads,
segments and writes at the same time; this program shows how to use it, and how fast a model is on this machine:

    python pipelines/stream.py runs/vessel/model clip.mp4 --out masks
    python pipelines/stream.py runs/vessel/model clip.dcm --out overlay.mp4 --smoothing 0.6
    python pipelines/stream.py runs/vessel/model clip.mp4 --out masks --camera 30

The model is one of 2D images (`medseg train vessel2d`, or `net.name=enet`). A mask for each frame, PNG with label
values, goes to a folder, with `--overlay` the frame under the colours of its labels; an `--out` that ends in .mp4 or
.avi is a video of that. Video files need OpenCV (the extra `video`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from layouts.frame_outputs import check_output, writer
from layouts.frame_sources import find_frames, paced
from layouts.run import run

import medseg


def main() -> None:
    """Parse the arguments and segment the frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the bundle, or the run folder that holds it")
    parser.add_argument("source", type=Path, help="a folder of pictures, a multi-frame DICOM file, or a video")
    parser.add_argument("--out", type=Path, required=True, help="a folder, or a video that ends in .mp4 or .avi")
    parser.add_argument("--overlay", action="store_true", help="write the frames under the colours of their labels")
    parser.add_argument("--smoothing", type=float, default=0.0, help="share of the earlier frames, 0 to below 1")
    parser.add_argument("--camera", type=float, metavar="RATE", help="send RATE frames a second and drop late ones")
    parser.add_argument("--mirror", action="store_true", help="average mirrored passes as predict does; slower")
    parser.add_argument("--engine", help="how the network is run; see medseg benchmark")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()

    # 1. What would fail at the end fails here: the output, the model, the source.
    check_output(arguments.out)
    if arguments.camera is not None and not 0 < arguments.camera <= 1000:
        parser.error("--camera: expected frames per second, above 0 and at most 1000")
    model = medseg.load_model(arguments.model, arguments.device, arguments.engine, fast=arguments.engine == "bf16")
    frames = find_frames(arguments.source, model.info.plan.in_channels)

    # 2. A camera does not wait, so late frames are dropped; of a file every frame is wanted.
    each = frames.each if arguments.camera is None else paced(frames.each, arguments.camera)
    live = arguments.camera is not None
    rate = arguments.camera or frames.rate
    stream = model.stream(each, drop=live, smoothing=arguments.smoothing, mirror=None if arguments.mirror else False)

    # 3. The network works on the next frame while this thread writes a mask.
    with writer(arguments.out, model.scheme, rate, arguments.overlay) as masks, stream:
        for found in stream:
            name = frames.names[found.number] if frames.names else f"frame_{found.number:06d}"
            masks.write(name, found.frame, found.mask)

    # 4. How fast it was, and what was dropped.
    print(stream.timings.text())


if __name__ == "__main__":
    run(main)
