"""Videos and cameras, frame by frame, by OpenCV."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np

from segroi.utils.suggest import UsageError, existing_file

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
_DEFAULT_RATE = 25.0  # of cameras that do not tell theirs


def is_video(source: str) -> bool:
    """Whether a source is a video file by its name, or the number of a camera."""
    return source.isdigit() or Path(source).suffix.lower() in SUFFIXES


class Video:
    """Frames of a file or a camera, to be used in a ``with`` block.

    Args:
        source: path of a video file, or the number of a camera ("0" is the first).

    Raises:
        UsageError: it is missing or cannot be read.
    """

    def __init__(self, source: str) -> None:
        camera = source.isdigit()
        self.source = f"camera {source}" if camera else str(existing_file(source, "video"))
        self._capture = cv2.VideoCapture(int(source) if camera else self.source)
        if not self._capture.isOpened():
            raise UsageError(f"{self.source} cannot be opened: no video that OpenCV can read")
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = 0 if camera else max(count, 0)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _DEFAULT_RATE

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def frames(self) -> Generator[np.ndarray, None, None]:
        """RGB frames uint8 ``[H, W, 3]``, in order.

        Raises:
            UsageError: there is not a single one.
        """
        found = False
        while True:
            read, frame = self._capture.read()
            if not read:
                break
            found = True
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        if not found:
            raise UsageError(f"{self.source} holds no frame that can be decoded")


class VideoWriter:
    """An mp4 file; every frame is brought to the size of the first. Used in a ``with`` block.

    Args:
        path: file to write.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: np.ndarray) -> None:
        """Append an RGB frame uint8 ``[H, W, 3]``."""
        if self._writer is None:
            self._size = (frame.shape[1], frame.shape[0])
            code = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, self._size)
            if not self._writer.isOpened():
                raise UsageError(f"{self.path} cannot be written: no encoder for mp4, or no folder")
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


class Window:
    """A live window; ``show`` tells whether it is still wanted (q and Esc close it).

    Raises:
        UsageError: this OpenCV or this machine has no windows.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise UsageError(
                "--show needs a display and the package opencv-python in place of "
                "opencv-python-headless"
            ) from error

    def show(self, frame: np.ndarray) -> bool:
        """Show an RGB frame; False when the user closed the window."""
        cv2.imshow(self.title, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
