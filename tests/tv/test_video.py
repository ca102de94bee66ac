from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from segroi.tv.video import FRAMES, predict_video
from segroi.utils.suggest import UsageError
from segroi.utils.video import Video, VideoWriter, Window, is_video

CATEGORIES = [{"id": 1, "name": "ball"}]


class Bright(nn.Module):
    """Finds the one bright square."""

    def forward(self, images):
        return [self.found(image.mean(0) > 0.5) for image in images]

    def found(self, mask):
        y, x = mask.nonzero(as_tuple=True)
        box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        scores = torch.tensor([0.9, 0.2])
        boxes, labels = box.expand(2, 4), torch.ones(2, dtype=torch.int64)
        masks = mask.float().expand(2, 1, *mask.shape)
        return {"boxes": boxes, "labels": labels, "scores": scores, "masks": masks}


def frames(count=5, size=(64, 80)):
    for n in range(count):
        frame = np.zeros((*size, 3), np.uint8)
        frame[20:40, 10 + 4 * n : 30 + 4 * n] = 255
        yield frame


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 12.0) as writer:
        for frame in frames():
            writer.write(frame)
    return path


def test_every_frame_is_predicted_and_written(clip, tmp_path):
    target, count, rate = predict_video(Bright(), CATEGORIES, str(clip), tmp_path / "out")
    assert count == 5 and rate > 0
    lines = [json.loads(line) for line in (tmp_path / "out" / FRAMES).read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4]
    for n, line in enumerate(lines):
        (instance,) = line["instances"]
        assert instance["name"] == "ball"
        wanted = [10 + 4 * n, 20, 30 + 4 * n, 40]
        assert np.abs(np.subtract(instance["box"], wanted)).max() <= 2  # the codec blurs edges
    with Video(str(target)) as video:
        drawn = list(video.frames())
        assert len(drawn) == 5 and video.rate == pytest.approx(12.0, abs=0.1)
    factor = drawn[0].shape[0] // 64  # small pictures are enlarged
    tinted = drawn[0][30 * factor, 20 * factor].astype(int)
    assert np.ptp(tinted) > 30  # the white square has the colour of its mask
    assert drawn[0][:30].max() > 150  # the frame rate in the corner


def test_frames_of_another_size_are_brought_to_the_first(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 10) as writer:
        writer.write(next(frames(size=(64, 80))))
        writer.write(next(frames(size=(128, 96))))
    with Video(str(tmp_path / "v.mp4")) as video:
        assert [f.shape for f in video.frames()] == [(64, 80, 3)] * 2


def test_sources_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"missing.mp4"):
        Video(str(tmp_path / "missing.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UsageError, match="cannot be opened"):
        Video(str(tmp_path / "text.mp4"))
    with pytest.raises(UsageError, match="camera 97 cannot be opened"):
        Video("97")


def test_a_video_without_frames(clip, monkeypatch):
    with Video(str(clip)) as video:
        list(video.frames())
        with pytest.raises(UsageError, match="no frame that can be decoded"):
            list(video.frames())


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        with VideoWriter(tmp_path / "none" / "v.mp4", 10) as writer:
            writer.write(next(frames()))


def test_no_window_without_a_gui(monkeypatch):
    def broken(*_):
        raise cv2.error("not implemented")

    monkeypatch.setattr(cv2, "namedWindow", broken)
    with pytest.raises(UsageError, match="needs a display"):
        Window("title")


@pytest.mark.parametrize(
    ("source", "expected"), [("0", True), ("a.MP4", True), ("a.png", False), ("folder", False)]
)
def test_what_a_source_is(source, expected):
    assert is_video(source) is expected
