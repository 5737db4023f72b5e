import http.server
import io
import os
import socket
import struct
import sys
import threading
import time
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detr.errors import InputError, TooLarge, UsageError
from detr.video import FrameReader, Source, VideoWriter, find_sources, frames
from detr.video.writing import _Clock

MILLISECOND = Fraction(1, 1000)


def picture(index=0, width=64, height=48):
    """A bright square that walks to the right on a dark ground; the top left corner is red."""
    image = np.full((height, width, 3), 30, np.uint8)
    image[20:30, index % (width - 10) : index % (width - 10) + 10] = (60, 160, 240)
    image[:10, :10] = (220, 20, 20)
    return image


def make_video(
    path, count=20, *, size=(64, 48), codec="libx264", pix_fmt="yuv420p", pts=None, sound=None, container=None
):
    """A video written without our writer. `pts`: list of milliseconds; else 25 frames per second."""
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if pts is not None:
            stream.codec_context.time_base = stream.time_base = MILLISECOND
        voice = output.add_stream(sound, rate=48000, layout="mono") if sound else None
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24").reformat(format=pix_fmt)
            frame.pts = index if pts is None else pts[index]
            frame.time_base = Fraction(1, 25) if pts is None else MILLISECOND
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if voice is not None:
            add_sound(output, voice, count / 25)
    return path


def make_gif(path):
    pictures = [Image.fromarray(picture(5 * i)) for i in range(6)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 300, 100, 100, 50, 70])


def add_sound(output, voice, seconds):
    wave = (np.sin(np.arange(int(48000 * seconds)) / 20) * 8000).astype(np.int16)
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        output.mux(voice.encode(frame))
    output.mux(voice.encode(None))


def times(path):
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(container.streams.video[0])]


def sound_packets(path):
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(container.streams.audio[0])
            if packet.dts is not None
        ]


def copied(source, target, **options):
    """`source` read and written again, as `detr predict` does."""
    with FrameReader(Source("video", str(source))) as reader:
        writer = None
        for frame in reader:
            if writer is None:
                writer = VideoWriter(target, rate=frame.rate, time_base=frame.time_base, audio_from=source, **options)
            writer.write(frame.image, pts=frame.pts)
        writer.close()
    return writer


# --- what a source stands for


def test_a_folder_is_its_images_and_videos_in_order(tmp_path):
    for name in ("b.png", "a.JPG", "notes.json", "c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "inside.png").mkdir()
    found = find_sources(tmp_path)
    assert [(s.kind, s.name) for s in found] == [("image", "a"), ("image", "b"), ("video", "c")]


def test_a_glob_is_what_it_matches(tmp_path):
    for name in ("2.png", "1.png", "x.mp4"):
        (tmp_path / name).write_bytes(b"x")
    assert [s.name for s in find_sources(str(tmp_path / "*.png"))] == ["1", "2"]


def test_a_name_with_glob_characters_is_that_file(tmp_path):
    (tmp_path / "a[1]*.png").write_bytes(b"x")
    assert [s.name for s in find_sources(str(tmp_path / "a[1]*.png"))] == ["a[1]*"]


def test_a_list_file_is_its_lines(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "images" / name).write_bytes(b"x")
    (tmp_path / "all.txt").write_text(
        "\ufeff# the set\r\nimages/2.png\r\n\r\nimages/1.png\nhttp://localhost/x.jpg\n0\n"
    )
    found = find_sources(tmp_path / "all.txt")
    assert [(s.kind, s.name) for s in found] == [("image", "2"), ("image", "1"), ("url", "x"), ("camera", "camera-0")]


def test_numbers_are_cameras_dashes_pipes_and_urls_urls():
    assert [s.kind for s in find_sources([0, "1", "-", "rtsp://10.0.0.1/live", "https://a.example/b.mp4"])] == [
        *("camera", "camera", "pipe", "url", "url")
    ]


def test_a_file_with_no_ending_is_told_by_its_content(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "photo", format="png")
    make_video(tmp_path / "film.mp4", 2).rename(tmp_path / "film")
    assert [s.kind for s in find_sources([tmp_path / "photo", tmp_path / "film"])] == ["image", "video"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "empty source"),
        ("gone.png", "no such file"),
        ("gone/*.png", "no image or video matches"),
        ("a\0b", "NUL"),
        ("file:///etc/passwd", "by its path"),
        ("ftp://x/y.png", "unknown kind of URL"),
        ("http://a\\@b/c.png", "backslash"),
        ("http://a b/c.png", "blanks"),
    ],
)
def test_a_source_that_is_nothing_is_wrong_usage(source, words):
    with pytest.raises(UsageError, match=words):
        find_sources(source)


@pytest.mark.parametrize("name", ["best.safetensors", "best.PT", "model.onnx"])
def test_weights_among_the_sources_are_told_where_they_belong(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(9))
    with pytest.raises(UsageError, match=rf"{name} is a file of weights.*; they are given as --weights \S*{name}"):
        find_sources(tmp_path / name)


def test_a_release_among_the_sources_is_told_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"rtdetr-r18 is the name of weights.*as --weights rtdetr-r18"):
        find_sources(["rtdetr-r18", "street.jpg"])
    (tmp_path / "rtdetr-r18").mkdir()
    with pytest.raises(UsageError, match="no image or video in this folder"):
        find_sources("rtdetr-r18")


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    make_video(tmp_path / "a.mp4", 2)
    os.mkfifo(tmp_path / "b.mp4")
    assert [source.name for source in find_sources(tmp_path)] == ["a"]


def test_empty_folders_and_lists_are_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no image or video in this folder"):
        find_sources(tmp_path)
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(UsageError, match="empty list"):
        find_sources(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("list.txt\n")
    with pytest.raises(UsageError, match="cannot stand in a list"):
        find_sources(tmp_path / "list.txt")


def test_a_typing_mistake_names_its_neighbour(tmp_path):
    (tmp_path / "street.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="did you mean 'street"):
        find_sources(tmp_path / "stret.jpg")


# --- reading


def test_an_image_is_one_frame(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (frame,) = frames(tmp_path / "a.png")
    np.testing.assert_array_equal(frame.image, picture())
    assert (frame.path, frame.index, frame.time) == (str(tmp_path / "a.png"), None, None)


def test_frames_come_in_order_with_their_colours(tmp_path):
    path = make_video(tmp_path / "a.mp4", 20)
    read = list(frames(path))
    assert [frame.index for frame in read] == list(range(20))
    assert [frame.time for frame in read] == pytest.approx([i / 25 for i in range(20)])
    for index, frame in enumerate(read):
        assert frame.image.shape == (48, 64, 3) and np.abs(frame.image.astype(int) - picture(index)).mean() < 6


def test_a_stride_keeps_every_nth_and_its_number(tmp_path):
    path = make_video(tmp_path / "a.mp4", 20)
    with FrameReader(Source("video", str(path)), stride=7) as reader:
        assert reader.total == 3
        assert [frame.index for frame in reader] == [0, 7, 14]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mkv", "libx264", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mp4", "libsvtav1", "yuv420p10le"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mjpeg", "mjpeg", "yuvj420p"),
        ("späße 漢字 %03d.mp4", "libx264", "yuv420p"),
        ("-y.mp4", "libx264", "yuv420p"),
        ("a;touch x.mp4", "libx264", "yuv420p"),
    ],
)
@pytest.mark.filterwarnings("ignore:deprecated")
def test_codecs_containers_and_names_are_read(tmp_path, name, codec, pix_fmt):
    path = make_video(tmp_path / name, 12, codec=codec, pix_fmt=pix_fmt)
    read = list(frames(path))
    assert len(read) == 12 and read[0].image.dtype == np.uint8
    assert np.abs(read[-1].image.astype(int) - picture(11)).mean() < 12
    assert all(a.pts < b.pts for a, b in pairwise(read))


def test_an_animation_is_read_as_its_first_picture_with_a_note(tmp_path):
    make_gif(tmp_path / "a.gif")
    with FrameReader(*find_sources(tmp_path / "a.gif")) as reader:
        assert len(list(reader)) == 1
        assert reader.notes == ["the first of its 6 pictures was taken"]


def test_a_gif_can_be_read_as_video(tmp_path):
    make_gif(tmp_path / "a.gif")
    read = list(frames(Source("video", str(tmp_path / "a.gif"))))
    assert [frame.time for frame in read] == pytest.approx([0, 0.1, 0.4, 0.5, 0.6, 0.65])


def rotated(path, target, matrix):
    """The display matrix in an MP4's track header, replaced."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16
    data[place : place + 36] = struct.pack(">9i", *[int(value * 65536) for value in matrix[:8]], 0x40000000)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, 0, -1, 0, 0, 0, 0), -1), ((0, -1, 0, 1, 0, 0, 0, 0), 1), ((-1, 0, 0, 0, -1, 0, 0, 0), 2)],
)
def test_a_turned_video_is_read_upright(tmp_path, matrix, turns):
    """A phone held upright writes a lying picture and a matrix that turns it clockwise."""
    lying = make_video(tmp_path / "lying.mp4", 3)
    (plain, *_), (upright, *_) = frames(lying), frames(rotated(lying, tmp_path / "turned.mp4", matrix))
    np.testing.assert_array_equal(upright.image, np.rot90(plain.image, turns))


def test_times_of_a_variable_rate_are_kept(tmp_path):
    pts = [40 * i for i in range(20)] + [800 + 200 * i for i in range(10)]
    path = make_video(tmp_path / "a.mkv", 30, pts=pts)
    assert [frame.time for frame in frames(path)] == pytest.approx([t / 1000 for t in pts])


def test_a_late_start_is_kept(tmp_path):
    path = make_video(tmp_path / "a.mkv", 5, pts=[1500 + 40 * i for i in range(5)])
    assert next(frames(path)).time == pytest.approx(1.5)


def test_damaged_packets_are_left_out_and_counted(tmp_path):
    path = make_video(tmp_path / "a.mp4", 50)
    data = bytearray(path.read_bytes())
    start, size = data.index(b"mdat") + 4, 0
    rng = np.random.default_rng(0)
    size = data.index(b"moov") - start
    for place in rng.integers(start + size // 2, start + size - 10, 12):
        data[place : place + 6] = bytes([255, 254, 253, 252, 251, 250])
    path.write_bytes(data)
    with FrameReader(Source("video", str(path))) as reader:
        count = sum(1 for _ in reader)
    assert 10 < count < 50
    assert any("damaged packet" in note for note in reader.notes)


def test_a_cut_video_says_how_much_was_read(tmp_path):
    path = make_video(tmp_path / "a.mp4", 50, container={"movflags": "faststart"})
    data = path.read_bytes()
    start = data.index(b"mdat")
    path.write_bytes(data[: start + int((len(data) - start) * 0.7)])
    with FrameReader(Source("video", str(path))) as reader:
        count = sum(1 for _ in reader)
    assert 5 < count < 50
    assert f"{count} of the 50 frames it promises could be read" in reader.notes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello, no video here\n" * 40, "text"),
        (b"\0" * 5000, "zeros"),
        (b"<html>404</html>", "HTML"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, content, words):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        list(frames(path))
    assert "a.mp4" in str(raised.value) and "\n" not in str(raised.value)


def test_an_mp4_without_its_index_says_so(tmp_path):
    path = make_video(tmp_path / "a.mp4", 50)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(InputError, match="index is missing"):
        list(frames(path))


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        add_sound(output, output.add_stream("aac", rate=48000, layout="mono"), 0.5)
    with pytest.raises(InputError, match="holds no video, only audio"):
        list(frames(tmp_path / "a.mp4"))


def test_a_drawing_is_of_a_kind_that_is_not_decoded(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    with pytest.raises(InputError, match=r"a\.svg: is of a kind that is not decoded here; save it as JPEG"):
        list(frames(tmp_path / "a.svg"))


def widening(folder):
    """A video of 10 frames of 64 x 48, then 10 of 96 x 48."""
    make_video(folder / "1.ts", 10)
    make_video(folder / "2.ts", 10, size=(96, 48))
    both = folder / "both.ts"
    both.write_bytes((folder / "1.ts").read_bytes() + (folder / "2.ts").read_bytes())
    return both


@pytest.mark.parametrize(
    ("most", "words"), [(64 * 48 - 1, "64 x 48, more than 3,071"), (64 * 48, "96 x 48, more than")]
)
def test_frames_of_too_many_pixels_are_refused_at_once_and_on_the_way(tmp_path, most, words):
    path = widening(tmp_path)
    with pytest.raises(TooLarge, match=words):
        list(FrameReader(Source("video", str(path)), most_pixels=most))


def test_a_size_that_changes_midway_is_read_and_written(tmp_path):
    both = widening(tmp_path)
    sizes = [frame.image.shape for frame in frames(both)]
    assert sizes == [(48, 64, 3)] * 10 + [(48, 96, 3)] * 10
    copied(both, tmp_path / "out.mp4")
    written = list(frames(tmp_path / "out.mp4"))
    assert [frame.image.shape for frame in written] == [(48, 64, 3)] * 20
    assert written[15].image[:6].max() < 40, "a wide picture gets bars above and below"


def test_streams_joined_end_to_end_go_on_in_time(tmp_path):
    make_video(tmp_path / "1.ts", 50)
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "1.ts").read_bytes() * 2)
    copied(both, tmp_path / "out.mp4")
    gaps = np.diff([float(t) for t in times(tmp_path / "out.mp4")])
    assert len(gaps) == 99 and gaps == pytest.approx(0.04, abs=0.001)


def test_a_video_may_not_reach_outside(tmp_path):
    """A playlist, or one dressed up as a video, must not make us call a server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        for name in ("a.m3u8", "a.mp4"):
            path = tmp_path / name
            path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n")
            with pytest.raises(InputError, match="cannot be opened as video"):
                list(frames(Source("video", str(path))))
            with pytest.raises(BlockingIOError):
                server.accept()


def test_a_camera_that_is_not_there_is_an_error(capfd):
    with pytest.raises(InputError, match="camera 97: not found"):
        list(frames("97"))
    assert capfd.readouterr().err == ""


class Camera:
    """Five blue pictures (BGR), then it is unplugged."""

    left = 5
    released = False

    def __init__(self, number):
        assert number == 3

    def isOpened(self):
        return True

    def get(self, what):
        return 30.0

    def read(self):
        self.left -= 1
        return (self.left >= 0, np.full((48, 64, 3), (200, 0, 0), np.uint8))

    def release(self):
        Camera.released = True


def test_a_camera_gives_frames_with_times_until_it_stops(monkeypatch):
    monkeypatch.setattr("cv2.VideoCapture", Camera)
    with FrameReader(Source("camera", "3")) as reader:
        read = list(reader)
    assert reader.notes == ["it stopped sending pictures"]
    assert [frame.index for frame in read] == [0, 1, 2, 3, 4] and Camera.released
    assert read[0].image[0, 0].tolist() == [0, 0, 200] and read[0].rate == 30
    assert read[0].time is not None and read[0].time < 5 and read[0].source.name == "camera-3"


def test_a_camera_that_is_stuck_is_left_when_nobody_waits(monkeypatch):
    goes_on, asked = threading.Event(), []

    class Stuck(Camera):
        def read(self):
            goes_on.wait(30)
            return False, None

    monkeypatch.setattr("cv2.VideoCapture", Stuck)
    began = time.monotonic()
    with pytest.raises(InputError, match="camera 3: opened, but it sends no picture"):
        list(FrameReader(Source("camera", "3"), go_on=lambda seconds: asked.append(seconds) or len(asked) < 3))
    assert asked == pytest.approx([0.2, 0.4, 0.6]) and time.monotonic() - began < 20
    goes_on.set()


def test_what_opencv_raises_is_raised_where_pictures_are_taken(monkeypatch):
    class Broken(Camera):
        def read(self):
            raise MemoryError

    monkeypatch.setattr("cv2.VideoCapture", Broken)
    with FrameReader(Source("camera", "3")) as reader, pytest.raises(MemoryError):
        list(reader)


@pytest.fixture
def piped(monkeypatch):
    """Put bytes on standard input, through a pipe: it can't be rewound, and its length is not known."""

    opened = []

    def pipe(data):
        reading, writing = os.pipe()
        opened.append(open(reading, encoding="latin-1"))  # noqa: SIM115 (closed below)

        def feed():
            with open(writing, "wb") as end:
                end.write(data)

        threading.Thread(target=feed, daemon=True).start()
        monkeypatch.setattr(sys, "stdin", opened[-1])
        return frames("-")

    yield pipe
    for stream in opened:
        stream.close()


def test_frames_come_through_a_pipe(tmp_path, piped):
    film = make_video(tmp_path / "a.mkv", 15).read_bytes()
    streams = {"jpeg": io.BytesIO(), "png": io.BytesIO()}
    for kind, stream in streams.items():
        for index in range(7):
            Image.fromarray(picture(index)).save(stream, format=kind)
    assert len(list(piped(film))) == 15
    assert len(list(piped(streams["jpeg"].getvalue()))) == 7
    read = list(piped(streams["png"].getvalue()))
    assert len(read) == 7
    np.testing.assert_array_equal(read[6].image, picture(6))
    with pytest.raises(InputError, match="standard input: cannot be opened"):
        list(piped(b""))


def test_a_pipe_that_is_silent_is_spoken_of_and_ends_when_nobody_waits(tmp_path):
    """Named, before anybody writes; and on standard input, after the first frames."""
    asked = []

    def go_on(seconds):
        asked.append(seconds)
        return len(asked) < 3

    os.mkfifo(tmp_path / "a.mkv")
    with pytest.raises(InputError, match=r"a\.mkv: nobody writes into this pipe"):
        FrameReader(Source("video", str(tmp_path / "a.mkv")), go_on=go_on)
    assert asked == pytest.approx([0.2, 0.4, 0.6])

    film = make_video(tmp_path / "b.mkv", 15).read_bytes()
    with open(os.open(tmp_path / "a.mkv", os.O_RDWR), "wb") as silent:
        silent.write(film)
        silent.flush()
        asked.clear()
        with FrameReader(Source("video", str(tmp_path / "a.mkv")), go_on=go_on) as reader:
            assert len(list(reader)) == 15
    assert asked[:3] == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize("count", [0, 15])
def test_ctrl_c_while_a_pipe_is_waited_for_is_raised_though_pyav_would_drop_it(tmp_path, count):
    asked = []

    def go_on(seconds):
        asked.append(seconds)
        raise KeyboardInterrupt

    os.mkfifo(tmp_path / "a.mkv")
    with open(os.open(tmp_path / "a.mkv", os.O_RDWR), "wb") as silent:
        silent.write(make_video(tmp_path / "b.mkv", count).read_bytes() if count else b"")
        silent.flush()
        with pytest.raises(KeyboardInterrupt):
            list(FrameReader(Source("video", str(tmp_path / "a.mkv")), go_on=go_on))
    assert len(asked) == 1


@pytest.fixture
def server(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_urls_are_read(tmp_path, server):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    make_video(tmp_path / "b.mp4", 9)
    (tmp_path / "page.html").write_text("<html></html>")
    np.testing.assert_array_equal(next(frames(f"{server}/a.png")).image, picture())
    assert len(list(frames(f"{server}/b.mp4"))) == 9
    with pytest.raises(InputError, match="404"):
        list(frames(f"{server}/gone.png"))
    with pytest.raises(InputError, match="web page"):
        list(frames(f"{server}/page.html"))
    with pytest.raises(InputError, match="cannot be reached"):
        list(frames("http://127.0.0.1:9/a.png"))


# --- writing


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (321, 241), (2, 2), (1, 1)])
def test_what_is_written_plays_in_a_browser(tmp_path, size):
    with VideoWriter(tmp_path / "a.mp4", rate=30) as writer:
        for index in range(10):
            writer.write(picture(index, 330, 250)[: size[1], : size[0]])
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index stands in front"
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.format.name, stream.codec_tag) == (
            "h264",
            "yuv420p",
            "avc1",
        )
        assert (stream.width, stream.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        assert stream.average_rate == 30 and stream.frames == 10
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    "colour", [(220, 30, 30), (30, 200, 40), (20, 40, 230), (255, 255, 255), (0, 0, 0), (200, 180, 20)]
)
def test_colours_come_back(tmp_path, colour):
    image = np.full((720, 1280, 3), colour, np.uint8)
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(image)
    with av.open(str(tmp_path / "a.mp4")) as container:
        (frame,) = container.decode(video=0)
        assert (frame.colorspace, frame.color_range, frame.color_primaries) == (1, 1, 1), "said to be BT.709, limited"
    (back,) = frames(tmp_path / "a.mp4")
    assert np.abs(back.image.astype(int) - image).max() <= 4


@pytest.mark.parametrize("name", ["cfr.mp4", "vfr.mkv", "late.mkv", "a.ts", "a.gif", "a.avi"])
def test_times_are_those_of_the_source(tmp_path, name):
    path = tmp_path / name
    if name == "a.gif":
        make_gif(path)
    else:
        offset = 1500 if name == "late.mkv" else 0
        pts = [offset + 40 * i for i in range(20)] + [offset + 800 + 200 * i for i in range(10)]
        codec = "mpeg4" if name.endswith("avi") else "libx264"
        make_video(path, 30, codec=codec, pts=pts if name.endswith("mkv") else None)
    copied(path, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == [frame.pts * frame.time_base for frame in frames(Source("video", str(path)))]


def test_sound_is_copied_untouched(tmp_path):
    path = make_video(tmp_path / "a.mp4", 50, sound="aac")
    writer = copied(path, tmp_path / "out.mp4")
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(path)
    assert writer.notes == []


def test_sound_an_mp4_cannot_hold_is_left_out_with_a_note(tmp_path):
    path = make_video(tmp_path / "a.mkv", 20, sound="tta")
    writer = copied(path, tmp_path / "out.mp4")
    assert len(times(tmp_path / "out.mp4")) == 20
    assert writer.notes == ["sound left out: an MP4 cannot hold tta"]


def test_times_that_repeat_or_slip_back_still_make_a_video(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", rate=25, time_base=MILLISECOND) as writer:
        for pts in (0, 40, 40, 35, 120, 160):
            writer.write(picture(pts), pts=pts)
    assert [int(t * 1000) for t in times(tmp_path / "a.mp4")] == [0, 40, 41, 42, 120, 160]


@given(st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=40), st.integers(1, 500))
@settings(deadline=None, max_examples=200)
def test_times_always_grow_and_good_ones_stay(asked, step):
    clock = _Clock(step, second=1000)
    given_out = [clock.tick(time) for time in asked]
    assert all(a < b for a, b in pairwise(given_out))
    if all(a < b for a, b in pairwise(asked)):
        assert given_out == asked


def test_an_interrupted_video_is_finished_with_the_frames_so_far(tmp_path):
    path = make_video(tmp_path / "a.mp4", 50, sound="aac")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", rate=25, audio_from=path) as writer:
        for index in range(30):
            writer.write(picture(index))
        raise KeyboardInterrupt
    assert len(times(tmp_path / "out.mp4")) == 30
    assert float(sound_packets(tmp_path / "out.mp4")[-1][0]) == pytest.approx(30 / 25, abs=0.1)


def test_a_video_without_frames_is_no_file(tmp_path):
    with VideoWriter(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path):
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"a\.mp4"), VideoWriter(tmp_path / "a.mp4") as writer:
            for _ in range(40):
                writer.write(noise.integers(0, 255, (240, 320, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_flat_over_a_long_video(tmp_path):
    """Frames already handed out are not kept: reading and writing 400 frames takes what 100 take."""
    resource = pytest.importorskip("resource")
    make_video(tmp_path / "a.mp4", 100, size=(640, 480))
    copied(tmp_path / "a.mp4", tmp_path / "out.mp4")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        copied(tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
