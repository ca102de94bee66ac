"""Run a trained model on a video or a camera."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import nn

from segroi.tv.predict import predict_pixels
from segroi.utils.progress import Progress
from segroi.utils.video import Video, VideoWriter, Window

FRAMES = "predictions.jsonl"
_RECENT = 30  # frames that the counter looks back on


def predict_video(
    model: nn.Module,
    categories: Sequence[dict],
    source: str,
    output: str | Path,
    threshold: float = 0.5,
    show: bool = False,
) -> tuple[Path, int, float]:
    """Predict every frame; writes a video with masks, boxes, names and the frame rate.

    The frame rate counts all that a frame costs: decoding, network, masks, drawing and encoding.
    ``predictions.jsonl`` gets one line of instances for each frame.

    Args:
        model: a model of this host.
        categories: the categories that it was trained on, in the order of its labels.
        source: a video file, or the number of a camera.
        output: folder to write.
        threshold: detections with a lower score are left out.
        show: open a live window, too; closing it ends the work.

    Returns:
        The video written, the number of frames, and the mean frames per second.

    Raises:
        UsageError: the source cannot be read or the video not be written.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    name = f"camera{source}" if source.isdigit() else Path(source).stem
    target = output / f"{name}.mp4"
    window = Window(f"segroi: {name}") if show else None
    ends = deque([time.perf_counter()], maxlen=_RECENT + 1)
    started, count = ends[0], 0
    with (
        Video(source) as video,
        VideoWriter(target, video.rate) as writer,
        (output / FRAMES).open("w") as lines,
        Progress("predict", video.count or 1) as progress,
    ):
        for pixels in video.frames():
            drawn, instances = predict_pixels(model, categories, pixels, threshold)
            picture = np.array(drawn)  # a copy that can be written on
            rate = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0
            _note(picture, f"{rate:.1f} fps")
            writer.write(picture)
            lines.write(json.dumps({"frame": count, "instances": instances}) + "\n")
            count += 1
            ends.append(time.perf_counter())
            progress.advance({"fps": rate})
            if window is not None and not window.show(picture):
                break
    return target, count, count / (time.perf_counter() - started)


def _note(picture: np.ndarray, text: str) -> None:
    """Write into the upper left corner, in place."""
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(picture, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, colour, width)
