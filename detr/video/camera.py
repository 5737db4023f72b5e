"""Pictures of a camera, as OpenCV has them; one that sends nothing is left when nobody waits any longer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from detr.errors import InputError
from detr.video.pipes import GoOn

if TYPE_CHECKING:
    from cv2 import VideoCapture

_PAUSE = 0.2  # seconds from one look to the next
_GOODBYE = 0.5  # seconds to let go of the camera; where that is stuck, its thread dies with the program


class Camera:
    """InputError where there is none of that number; `go_on` is asked while it sends nothing.

    It is read in a thread of its own: nothing but OpenCV's own limit, which some cameras lack, ends its wait for one.
    """

    def __init__(self, number: str, called: str, go_on: GoOn) -> None:
        from detr.opencv import cv2

        self._called, self._go_on = called, go_on
        self._camera = _opened(number, called)
        self.rate = Fraction(self._camera.get(cv2.CAP_PROP_FPS) or 0).limit_denominator(1001)  # 0: it does not say
        self._wanted: queue.Queue[bool] = queue.Queue()  # whether to read on
        self._read: queue.Queue[tuple[bool, Any] | Exception] = queue.Queue()
        self._thread = threading.Thread(target=self._reading, daemon=True, name="detr-camera")
        self._thread.start()

    def pictures(self) -> Iterator[Any]:
        """[h, w, 3] uint8 BGR, until it sends no more."""
        count = 0
        while (picture := self._next()) is not None:
            count += 1
            yield picture
        if not count:
            raise InputError(f"{self._called}: opened, but it sends no picture")

    def close(self) -> None:
        self._wanted.put(False)
        self._thread.join(_GOODBYE)

    def _next(self) -> Any:
        """A picture; None where none comes any more, or nobody waits."""
        waited = 0.0
        self._wanted.put(True)
        while True:
            try:
                answer = self._read.get(timeout=_PAUSE)
            except queue.Empty:
                waited += _PAUSE
                if not self._go_on(waited):
                    return None
                continue
            if isinstance(answer, Exception):
                raise answer
            arrived, picture = answer
            return picture if arrived else None

    def _reading(self) -> None:
        while self._wanted.get():
            try:
                self._read.put(self._camera.read())
            except Exception as problem:  # raised again where pictures are taken
                self._read.put(problem)
        self._camera.release()


def _opened(number: str, called: str) -> VideoCapture:
    from detr.opencv import cv2

    with _quiet_opencv():
        camera = cv2.VideoCapture(int(number))
    if not camera.isOpened():
        camera.release()
        raise InputError(f"{called}: not found, or in use by another program")
    return camera


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """OpenCV tries one backend after the other and complains of each on stderr; we say it once."""
    from detr.opencv import cv2

    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
