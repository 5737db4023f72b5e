"""What the server takes, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Beyond them a request is refused, with the status that HTTP has for it."""

    waiting: int = 64  # requests inside at a time; 503 for more
    body: int = 20_000_000  # bytes of a picture's request; 413
    bodies: int = 256_000_000  # bytes of the pictures' requests inside, together; 503 for more
    pixels: int = 50_000_000  # of a picture, known before it is decoded; 413
    upload_seconds: float = 30.0  # until a body is there; 408
    videos: int = 1  # at a time, each of them one of those waiting; 503
    video_body: int = 256_000_000  # bytes, in a file; 413
    video_pixels: int = 10_000_000  # of a frame, of which a decoder holds many; 413
    frames: int = 10_000  # of a video; the rest is left out, and said to be


class Refused(Exception):
    """An answer other than a result: a status and one line; `retry_after` in seconds where trying again helps."""

    def __init__(self, status: int, words: str, *, retry_after: int | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.retry_after = status, words, retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
