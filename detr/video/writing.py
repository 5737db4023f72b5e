"""H.264 in MP4, as every browser plays it, with the times and the sound of the video it was made from."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from detr.errors import InputError
from detr.files import written_aside
from detr.image import RGB

BT709 = 1  # how players take untagged HD video; we convert to it and say so


class VideoWriter:
    """Writes frames to `path` (.mp4): libx264, yuv420p, index at the front.

    Use it in a `with` block. The file takes its place under `path` when the block ends; where an exception such as
    Ctrl-C ends it, with the frames so far. Only where writing itself fails (the disk is full) nothing is left behind,
    and the InputError says why.

    The first frame's size is the video's; H.264 wants it even, so an odd edge is doubled. Frames of another size are
    fitted into it between black bars.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate: Fraction | int | float = 25,
        time_base: Fraction | None = None,
        audio_from: str | os.PathLike[str] | None = None,
        quality: int = 23,
    ) -> None:
        """Sizes and colours come with the first frame.

        time_base: unit of `write`'s pts in seconds; one frame where it isn't given.
        audio_from: a file whose sound is copied.
        quality: x264's CRF; smaller looks better and takes more bytes.
        """
        self.path = Path(path)
        self.notes: list[str] = []
        self._rate = Fraction(rate).limit_denominator(1_000_000)
        self._time_base = time_base or 1 / self._rate
        self._clock = _Clock(max(1, round(1 / self._rate / self._time_base)), second=round(1 / self._time_base))
        self._audio_from = audio_from
        self._quality = quality
        self._aside: ExitStack | None = None
        self._output: OutputContainer | None = None
        self._audio: _AudioCopy | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(to_the_end=problem is None)

    def write(self, image: RGB, *, pts: int | None = None) -> None:
        """Add a frame. `pts` in units of `time_base`; without it, one frame after the last."""
        try:
            if self._output is None:
                self._open(image.shape[1], image.shape[0])
            assert self._output is not None
            picture = self._fitted(image).reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            picture.pts = self._clock.tick(pts)
            picture.time_base = self._time_base
            self._output.mux(self._video.encode(picture))
            if self._audio is not None:
                self._audio.copy(until=picture.pts * self._time_base)
        except (av.FFmpegError, OSError) as problem:
            self._give_up(problem)

    def close(self, *, to_the_end: bool = True) -> None:
        """Finish the file. `to_the_end`: the sound goes on to its own end, where it is longer than the frames."""
        if self._aside is None:
            return
        aside, self._aside = self._aside, None
        with aside:  # what goes wrong in here takes the unfinished file away
            try:
                self._finish(to_the_end)
            except (av.FFmpegError, OSError) as problem:
                raise self._as_input_error(problem) from problem

    def _finish(self, to_the_end: bool) -> None:
        assert self._output is not None
        try:
            self._output.mux(self._video.encode(None))
            if self._audio is not None:
                self._audio.copy(until=None if to_the_end else self._clock.last * self._time_base)
        finally:
            self._output.close()
            if self._audio is not None:
                self._audio.close()

    def _open(self, width: int, height: int) -> None:
        self._aside = ExitStack()
        part = self._aside.enter_context(written_aside(self.path))
        self._output = av.open(str(part.absolute()), "w", format="mp4", options={"movflags": "faststart"})
        self._size = (width + width % 2, height + height % 2)
        # The next slower preset, veryfast, takes almost twice the time for a fifth less bytes of the same PSNR.
        options = {"crf": str(self._quality), "preset": "superfast"}
        self._video: VideoStream = self._output.add_stream("libx264", rate=self._rate, options=options)
        self._video.width, self._video.height = self._size
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = self._time_base
        self._video.time_base = self._time_base
        context = self._video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1  # limited, as is usual in video
        if self._audio_from is not None:
            self._audio = _AudioCopy(self._audio_from, self._output)
            self.notes += self._audio.notes

    def _fitted(self, image: RGB) -> VideoFrame:
        width, height = self._size
        missing = (height - image.shape[0], width - image.shape[1])
        if missing in ((0, 0), (0, 1), (1, 0), (1, 1)):
            image = image if missing == (0, 0) else np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
            return VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        scale = min(width / image.shape[1], height / image.shape[0])
        inner = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        small = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(*inner).to_ndarray()
        canvas = np.zeros((height, width, 3), np.uint8)
        top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
        canvas[top : top + inner[1], left : left + inner[0]] = small
        return VideoFrame.from_ndarray(canvas, format="rgb24")

    def _give_up(self, problem: Exception) -> NoReturn:
        error = self._as_input_error(problem)
        aside, self._aside = self._aside, None
        if self._output is not None:
            with suppress(av.FFmpegError, OSError):  # the same trouble again
                self._output.close()
        if aside is not None:
            aside.__exit__(type(error), error, None)
        raise error from problem

    def _as_input_error(self, problem: Exception) -> InputError:
        return InputError(f"{self.path}: cannot be written ({getattr(problem, 'strerror', None) or problem})")


class _Clock:
    """Times that strictly grow. A time that repeats or slips back a little comes one unit after the last; after a jump
    back (streams joined end to end) time goes on from the last frame."""

    def __init__(self, step: int, *, second: int) -> None:
        self._step = step
        self._second = second
        self._shift = 0
        self.last = 0
        self._ticking = False

    def tick(self, time: int | None) -> int:
        if not self._ticking:
            self._ticking, self.last = True, time or 0
            return self.last
        now = self.last + self._step if time is None else time + self._shift
        if now <= self.last - self._second:
            self._shift += self.last + self._step - now
            now = self.last + self._step
        self.last = max(now, self.last + 1)
        return self.last


class _AudioCopy:
    """The sound of a file, packet by packet as it is, into another."""

    def __init__(self, path: str | os.PathLike[str], output: OutputContainer) -> None:
        self.notes: list[str] = []
        self._output = output
        self._source: InputContainer = av.open(
            str(Path(path).absolute()), options={"protocol_whitelist": "file,crypto"}
        )
        self._copies: dict[int, Stream] = {}
        self._clocks: dict[int, _Clock] = {}
        for stream in self._source.streams.audio:
            name = stream.codec_context.name
            try:
                self._copies[stream.index] = output.add_stream_from_template(stream)
                self._clocks[stream.index] = _Clock(1, second=round(1 / (stream.time_base or 1)))
            except ValueError:
                self.notes.append(f"sound left out: an MP4 cannot hold {name}")
        streams = [self._source.streams[index] for index in self._copies]
        self._packets = self._source.demux(*streams) if streams else iter(())
        self._next: Packet | None = self._read()

    def copy(self, *, until: Fraction | None) -> None:
        """Write the packets up to a time in seconds; all of them where it is None."""
        while (packet := self._next) is not None:
            assert packet.dts is not None and packet.time_base is not None
            if until is not None and packet.dts * packet.time_base > until:
                return
            shift = self._clocks[packet.stream.index].tick(packet.dts) - packet.dts
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts += shift
            packet.stream = self._copies[packet.stream.index]
            self._output.mux(packet)
            self._next = self._read()

    def close(self) -> None:
        self._source.close()

    def _read(self) -> Packet | None:
        """The next packet with a time. Damage ends the sound: what follows could not be placed."""
        try:
            return next((packet for packet in self._packets if packet.dts is not None), None)
        except av.error.InvalidDataError:
            self.notes.append("sound cut short where the file is damaged")
            return None
