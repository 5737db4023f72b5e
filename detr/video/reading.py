"""One way to read frames, upright and with their times, from whatever can be seen."""

from __future__ import annotations

import io
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from detr.bands import Bands, from_picture
from detr.errors import InputError, TooLarge, counted
from detr.image import RGB
from detr.image_file import MOST_PIXELS, count_pictures, looks_like, read_image
from detr.video.camera import Camera
from detr.video.pipes import GoOn, NamedPipe, Pipe, is_pipe, standard_input
from detr.video.sources import IMAGE_SUFFIXES, Source, find_sources

PATIENCE = (15.0, 30.0)  # seconds a stream may take to open, and to send the next packet
LARGEST_DOWNLOAD = 256 * 2**20  # bytes of one image
USUAL_RATE = Fraction(25)  # for streams that don't say


@dataclass(frozen=True, eq=False)
class Frame:
    """An image, or one picture of a video."""

    image: Bands  # [h, w, 3] uint8 RGB, upright; of a file read with other `channels`, so many
    source: Source
    index: int | None = None  # place in the video, from 0, whatever the stride; None for an image
    pts: int | None = None  # presentation time in units of time_base, as in the file
    time_base: Fraction | None = None  # seconds
    rate: Fraction | None = None  # frames per second, on average

    @property
    def path(self) -> str:
        return self.source.path

    @property
    def time(self) -> float | None:
        """Seconds, as in the file: a video need not begin at 0."""
        return None if self.pts is None or self.time_base is None else float(self.pts * self.time_base)


def frames(
    source: str | int | os.PathLike[str] | Source | Iterable[str | int | os.PathLike[str]],
    *,
    stride: int = 1,
    channels: int = 3,
) -> Iterator[Frame]:
    """Frames of everything `source` stands for (see `find_sources`); of videos, every `stride`-th from the first."""
    for one in [source] if isinstance(source, Source) else find_sources(source):
        with FrameReader(one, stride=stride, channels=channels) as reader:
            yield from reader


class FrameReader:
    """The frames of one source, in order, in constant memory.

    InputError for what can't be opened and what holds no frame; TooLarge for a video whose frames have more than
    `most_pixels`, before one is decoded. Damaged packets are left out and counted: `notes` says, once the frames are
    through, what was lost. `go_on` is asked while a pipe or a camera sends nothing; a pipe ends where it says no.
    """

    def __init__(
        self,
        source: Source,
        *,
        stride: int = 1,
        channels: int = 3,
        most_pixels: int = MOST_PIXELS,
        go_on: GoOn = lambda _: True,
    ) -> None:
        if stride < 1:
            raise InputError(f"a stride of {stride}; expected 1 or more")
        if source.kind != "image" and channels not in (1, 3):
            raise InputError(f"{source.called}: a video has 3 channels; the model takes {channels}")
        self.source = source
        self.stride, self.channels, self.most_pixels = stride, channels, most_pixels
        self._go_on = go_on
        self.notes: list[str] = []
        self.total: int | None = None  # frames to come, as far as the file knows
        self._image: Bands | None = None
        self._container: InputContainer | None = None
        self._pipe: Pipe | None = None
        self._camera: Camera | None = None
        if source.kind == "image":
            self.total = 1
        elif source.kind == "sequence":
            self.total = -(-len(source.files) // stride)
        elif source.kind == "camera":
            self._camera = Camera(source.path, source.called, self._go_on)
        elif source.kind == "url" and (picture := _fetched_image(source.path, channels)) is not None:
            self._image, self.total = picture, 1
        else:
            try:
                self._open_video()
            except BaseException:
                self.close()
                raise

    def _open_video(self) -> None:
        place: Any = self.source.path
        if self.source.kind == "pipe":
            place = standard_input(sys.stdin.buffer, self._go_on)
            self._pipe = place if isinstance(place, Pipe) else None
        elif self.source.kind == "video" and is_pipe(place):
            place = self._pipe = NamedPipe(place, self._go_on)
        elif self.source.kind == "video":
            place = str(Path(place).absolute())  # an absolute path is never taken for a protocol or an option
        try:
            self._container = _open_container(place, self.source, self.most_pixels)
        finally:
            self._require_pipe()
        stream = _picture_stream(self._container, self.source)
        self._require_size(stream)
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(self.most_pixels)}
        self.total = _expected(self._container, stream, self.stride)

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        if self._pipe is not None:
            self._pipe.close()
        if self._camera is not None:
            self._camera.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._container is not None:
            return self._video_frames(self._container)
        if self._camera is not None:
            return self._camera_frames(self._camera)
        if self.source.kind == "sequence":
            return self._pictures()
        return self._one_image()

    def _one_image(self) -> Iterator[Frame]:
        if self._image is None:
            self._image = read_image(self.source.path, channels=self.channels)
            if (count := count_pictures(self.source.path)) > 1:
                self.notes.append(f"the first of its {count} pictures was taken")
        yield Frame(self._image, self.source)

    def _pictures(self) -> Iterator[Frame]:
        """Those of a sequence; one that can't be read is left out, and its place stays empty."""
        rate = self.source.rate
        assert rate is not None
        arrived = False
        for index in range(0, len(self.source.files), self.stride):
            try:
                image = read_image(self.source.files[index])
            except InputError as problem:
                self.notes.append(f"{problem}; left out")
                continue
            arrived = True
            yield Frame(image, self.source, index, index, 1 / rate, rate)
        if not arrived:
            raise InputError(f"{self.source.called}: none of its {len(self.source.files)} pictures can be read")

    def _video_frames(self, container: InputContainer) -> Iterator[Frame]:
        stream = _picture_stream(container, self.source)
        rate = _rate(stream)
        index = -1
        pts: int | None = None
        for index, picture in enumerate(self._decoded(container, stream)):
            time_base = picture.time_base or stream.time_base or 1 / rate
            if picture.pts is not None:
                pts = picture.pts
            else:  # a bare stream without times
                pts = 0 if pts is None else pts + max(1, round(1 / rate / time_base))
            if index % self.stride == 0:
                yield Frame(self._in_channels(_upright(picture)), self.source, index, pts, time_base, rate)
        if index < 0:
            raise InputError(f"{self.source.called}: holds no frame that could be decoded")
        if self.source.kind == "video" and index + 1 < stream.frames:
            self.notes.append(f"{index + 1} of the {stream.frames} frames it promises could be read")

    def _in_channels(self, image: RGB) -> Bands:
        return image if self.channels == 3 else from_picture(Image.fromarray(image), 1, self.source.called)

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Decoded pictures. A damaged packet is left out; where the container itself is damaged, we try on a while."""
        damaged = failures = concealed = 0
        packets = container.demux(stream)
        waiting: list[Packet] = []
        while failures < 100:
            try:
                waiting.append(next(packets))
                self._require_pipe()
                failures = 0
                if waiting[-1].is_corrupt:
                    continue  # the next one says whether the file ends with it
                if not waiting[-1].size:
                    # Cut through by the end of the file: given to a decoder with several threads, it would take whole
                    # pictures along that are still on their way through them.
                    damaged += len(waiting) - 1
                    waiting = waiting[-1:]
                pictures = [picture for _ in range(len(waiting)) for picture in waiting.pop(0).decode()]
            except (StopIteration, av.error.EOFError):
                break
            except av.error.InvalidDataError:
                self._require_size(stream)
                damaged += 1
                failures += 1
                packets = container.demux(stream)  # the old iterator ended with its exception
                continue
            except (av.FFmpegError, OSError) as problem:
                if self.source.is_live:
                    raise InputError(f"{self.source.called}: the stream broke off ({_reason(problem)})") from None
                self.notes.append(f"reading stopped early ({_reason(problem)})")
                break
            for picture in pictures:
                concealed += picture.is_corrupt
                yield picture
        self._require_pipe()
        if damaged:
            self.notes.append(f"{counted(damaged, 'damaged packet')} left out")
        if concealed:
            self.notes.append(f"{concealed} frame{'s are' if concealed > 1 else ' is'} damaged in part")

    def _require_pipe(self) -> None:
        """What ended the reading of a pipe before its end, raised here."""
        if self._pipe is not None:
            self._pipe.raise_if_broken_off()

    def _require_size(self, stream: VideoStream) -> None:
        """At the beginning, and where the decoder refuses what comes: the size may change on the way."""
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > self.most_pixels:
            self.close()
            raise TooLarge(f"{self.source.called}: frames of {width} x {height}, more than {self.most_pixels:,} pixels")

    def _camera_frames(self, camera: Camera) -> Iterator[Frame]:
        start = time.monotonic()
        for index, picture in enumerate(camera.pictures()):
            if index % self.stride == 0:
                milliseconds = round(1000 * (time.monotonic() - start))
                upright = np.ascontiguousarray(picture[:, :, ::-1], dtype=np.uint8)
                image = self._in_channels(upright)
                yield Frame(image, self.source, index, milliseconds, Fraction(1, 1000), camera.rate or USUAL_RATE)
        self.notes.append("it stopped sending pictures")


def _open_container(place: Any, source: Source, most_pixels: int) -> InputContainer:
    """A local file may refer to local files only, and what comes from outside may refer to outside only."""
    remote = "http,https,tcp,tls,udp,rtp,rtsp,rtmp,rtmps,srt,crypto"
    allowed = {"video": "file,crypto", "pipe": "pipe", "url": remote}[source.kind]
    # The first frames are decoded to learn what is in there, so the limit holds for that as well.
    options = {"protocol_whitelist": allowed, "rtsp_transport": "tcp", "max_pixels": str(most_pixels)}
    try:
        return av.open(place, options=options, timeout=PATIENCE if source.kind == "url" else None)
    except (av.FFmpegError, OSError, ValueError) as problem:
        raise InputError(f"{source.called}: cannot be opened as video ({_why_not_opened(source, problem)})") from None


def _why_not_opened(source: Source, problem: Exception) -> str:
    unknown = isinstance(problem, (av.error.InvalidDataError, av.error.EOFError))
    if source.kind == "video" and unknown and not is_pipe(source.path):
        with Path(source.path).open("rb") as file:
            head = file.read(512)
        known = looks_like(head)
        return "its index is missing: cut short, or still being written" if "MP4" in known else known
    if unknown and source.kind in ("pipe", "video"):
        return "nothing, or an unknown format; an MP4 must have its index in front (-movflags +faststart)"
    return _reason(problem)


def _picture_stream(container: InputContainer, source: Source) -> VideoStream:
    """The first stream that moves: the cover of a song is a video stream too."""
    moving = [one for one in container.streams.video if not one.disposition & av.stream.Disposition.attached_pic]
    for stream in moving:
        if stream.codec_context is not None:
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    if moving:  # an SVG is one
        raise InputError(f"{source.called}: is of a kind that is not decoded here; save it as JPEG, PNG or MP4")
    raise InputError(f"{source.called}: holds no video" + (f", only {', '.join(kinds)}" if kinds else ""))


def _rate(stream: VideoStream) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return rate if rate and 0 < rate <= 1000 else USUAL_RATE


def _expected(container: InputContainer, stream: VideoStream, stride: int) -> int | None:
    count = stream.frames
    if not count and stream.duration and stream.time_base:
        count = round(stream.duration * stream.time_base * _rate(stream))
    elif not count and container.duration:
        count = round(Fraction(container.duration, av.time_base) * _rate(stream))
    return -(-count // stride) if count and count > 0 else None


def _upright(picture: VideoFrame) -> RGB:
    image: RGB = picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    quarters = picture.rotation / 90  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, round(quarters))) if quarters and quarters == round(quarters) else image


def _fetched_image(url: str, channels: int) -> Bands | None:
    """The image behind an http(s) URL; None where there is a video or a stream."""
    if not url.lower().startswith(("http://", "https://")):
        return None
    request = urllib.request.Request(url, headers={"User-Agent": "detr"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE[0]) as answer:
            kind = answer.headers.get_content_type()
            suffix = Path(urlsplit(url).path).suffix.lower()
            if not (kind.startswith("image/") or (kind == "application/octet-stream" and suffix in IMAGE_SUFFIXES)):
                if kind == "text/html":
                    raise InputError(f"{url}: is a web page, not an image or a video")
                return None
            data = answer.read(LARGEST_DOWNLOAD + 1)
    except urllib.error.HTTPError as problem:
        raise InputError(f"{url}: the server answers {problem.code} {problem.reason}") from None
    except (OSError, ValueError) as problem:
        raise InputError(f"{url}: cannot be reached ({getattr(problem, 'reason', problem)})") from None
    if len(data) > LARGEST_DOWNLOAD:
        raise InputError(f"{url}: more than {LARGEST_DOWNLOAD >> 20} MiB for one image")
    return read_image(io.BytesIO(data), name=url, channels=channels)


def _reason(problem: Exception) -> str:
    if isinstance(problem, av.error.ExitError):
        return "no answer in time"
    return getattr(problem, "strerror", None) or str(problem)
