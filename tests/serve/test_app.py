import asyncio
import base64
import json
import struct
import threading
import zlib
from io import BytesIO
from itertools import islice

import httpx
import numpy as np
import pytest
from PIL import Image

from detr.data.shapes_video import moving_shapes, write_video
from detr.engine.detector import Detector
from detr.errors import InputError
from detr.serve import Limits
from detr.video import FrameReader
from tests.serve.conftest import open_client

FORM = "multipart/form-data; boundary=x"


def test_a_picture_is_answered_as_predict_answers(ask, detector, picture):
    response = ask("/predict?conf=0.01&max_det=5", content=picture)
    (result,) = detector(np.asarray(Image.open(BytesIO(picture))), channels="rgb", conf=0.01, max_det=5)
    answer = response.json()
    assert response.status_code == 200 and (answer["width"], answer["height"]) == (40, 30)
    assert len(answer["detections"]) == 5 and answer["detections"] == result.summary()
    assert set(answer["speed"]) == {"preprocess", "inference", "postprocess"}


def test_bytes_a_form_and_json_are_the_same_request(ask, picture):
    text = base64.b64encode(picture).decode()
    files = {"any": ("../../etc/passwd", picture)}
    trees = [{"image": text}, {"image": f"data:image/png;base64,{text}"}]
    ways = [{"content": picture}, {"files": files}, *({"json": tree} for tree in trees)]
    answers = [ask("/predict?conf=0", **way).json()["detections"] for way in ways]
    assert answers[0] and all(answer == answers[0] for answer in answers)


def test_only_the_classes_asked_for_are_given(ask, detector, picture):
    found = ask(f"/predict?conf=0&classes={detector.names[3]},5", content=picture).json()["detections"]
    assert {row["class"] for row in found} == {3, 5}


@pytest.mark.parametrize(
    ("path", "request_", "status", "words"),
    [
        ("/predict", {"content": b""}, 400, "no picture in the request"),
        ("/predict", {"content": b"hello"}, 415, r"not an image we can read \(looks like text\)"),
        ("/predict", {"content": b"\x89PNG\r\n\x1a\n" + b"\0" * 40}, 415, "looks like a damaged PNG"),
        ("/predict", {"json": {"image": "no base64!"}}, 400, "base64"),
        ("/predict", {"json": [1]}, 400, "image"),
        ("/predict", {"json": {"image": 3}}, 400, 'no text under "image"'),
        ("/predict", {"files": {"any": ("empty.png", b"")}}, 400, "no picture in the request"),
        ("/predict", {"files": [("a", ("a.png", b"x")), ("b", ("b.png", b"x"))]}, 400, "files"),
        ("/predict", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "image"),
        ("/predict", {"content": b"--y", "headers": {"content-type": FORM}}, 400, ""),
        ("/predict", {"data": {"a": "b"}, "files": {}}, 415, "not an image"),
        ("/predict?cnf=0.3", {"content": b"x"}, 422, "unknown parameter 'cnf'; did you mean 'conf'?"),
        ("/predict?conf=2", {"content": b"x"}, 422, "conf: .*less than or equal to 1.*'2'"),
        ("/predict?conf=nan", {"content": b"x"}, 422, "conf"),
        ("/predict?classes=unicorn", {"content": b"x"}, 422, "unicorn"),
        ("/explain", {"content": b"x"}, 422, "index: field required"),
        ("/nowhere", {"content": b"x"}, 404, "/nowhere: Not Found"),
        ("/predict/video", {"content": b""}, 400, "no video in the request"),
        ("/predict/video", {"content": b"hello"}, 422, "^video: cannot be opened as video"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(ask, path, request_, status, words):
    response = ask(path, **request_)
    error = response.json()["error"]
    assert response.status_code == status and "\n" not in error and "Traceback" not in error
    assert __import__("re").search(words, error), error


def test_a_cut_picture_and_another_method_are_refused(ask, picture):
    response = ask("/predict", content=picture[: len(picture) // 2])
    assert response.status_code == 422 and "damaged or cut short" in response.json()["error"]
    assert ask("/predict", method="GET").status_code == 405


def huge_header(width, height):
    """A PNG of a few bytes that claims to be huge."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(100_000, 100_000), (9_400, 9_400), (8_000, 7_000)])
def test_pictures_that_claim_to_be_huge_are_refused_from_their_header(ask, size):
    response = ask("/predict", content=huge_header(*size))
    assert response.status_code == 413 and "claims more than 50,000,000 pixels" in response.json()["error"]


def test_a_long_body_is_refused_whether_or_not_it_says_so(ask):
    options = {"limits": Limits(body=1000)}
    response = ask("/predict", content=b"x" * 1001, options=options)
    assert response.status_code == 413 and response.json() == {"error": "a body of more than 1,000 bytes"}

    async def pieces():
        for _ in range(5):
            yield b"x" * 300

    assert ask("/predict", content=pieces(), options=options).status_code == 413


def test_a_body_may_have_as_many_bytes_as_its_limit(ask):
    response = ask("/predict", content=b"x" * 1000, options={"limits": Limits(body=1000)})
    assert response.status_code == 415 and "not an image" in response.json()["error"]


def test_videos_have_a_limit_of_their_own(ask):
    options = {"limits": Limits(body=10, bodies=10, video_body=1000)}
    assert ask("/predict/video", content=b"x" * 1000, options=options).status_code == 422  # let in, and no video
    response = ask("/predict/video", content=b"x" * 1001, options=options)
    assert response.status_code == 413 and response.json() == {"error": "a body of more than 1,000 bytes"}


def test_bytes_that_find_no_room_get_503_and_the_room_is_free_again(ask, detector, picture):
    size = len(picture)

    async def crowd():
        held = Held(detector)
        async with open_client(held, limits=Limits(body=10 * size, bodies=3 * size)) as client:
            first = [asyncio.create_task(client.post("/predict", content=picture)) for _ in range(3)]
            while not held.sizes:
                await asyncio.sleep(0.01)
            refused = await client.post("/predict", content=picture)
            held.go.set()
            answered = await asyncio.gather(*first)
            return refused, [*answered, *[await client.post("/predict", content=picture) for _ in range(4)]]

    refused, answered = asyncio.run(crowd())
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
    assert refused.json() == {"error": "no room for more bytes; try again"}
    assert {response.status_code for response in answered} == {200}


def test_a_slow_body_is_given_up(ask):
    async def slow():
        yield b"x"
        await asyncio.sleep(5)
        yield b"y"

    response = ask("/predict", content=slow(), options={"limits": Limits(upload_seconds=0.2)})
    assert response.status_code == 408 and "within 0.2 seconds" in response.json()["error"]


class Held(Detector):
    """Answers when it is let."""

    def __init__(self, detector):
        self.__dict__.update(detector.__dict__)
        self.go, self.sizes, self.is_open = threading.Event(), [], False

    def detect(self, group, settings):
        if self.is_open:
            self.sizes.append(len(group))
            assert self.go.wait(20)
        self.is_open = True  # after the first, by which the server gets ready
        return super().detect(group, settings)


def test_requests_beyond_the_places_get_503_and_all_others_are_answered(detector, picture):
    async def crowd():
        held = Held(detector)
        async with open_client(held, limits=Limits(waiting=6), batch=4) as client:
            first = [asyncio.create_task(client.post("/predict", content=picture)) for _ in range(6)]
            while len(held.sizes) < 1:
                await asyncio.sleep(0.01)
            refused = await asyncio.gather(*(client.post("/predict", content=picture) for _ in range(20)))
            held.go.set()
            answered = await asyncio.gather(*first)
            after = await client.post("/predict", content=picture)
            return refused, answered, after, held.sizes

    refused, answered, after, sizes = asyncio.run(crowd())
    assert {response.status_code for response in refused} == {503}
    assert all(int(response.headers["Retry-After"]) >= 1 for response in refused)
    assert {response.status_code for response in [*answered, after]} == {200}
    assert sum(sizes) == 7 and 1 < max(sizes) <= 4  # those that waited went together, as many as may


def test_slow_senders_keep_no_place_from_others(detector, picture):
    async def beside_a_slow_one():
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def slowly():
            yield picture[:10]
            begun.set()
            await goes_on.wait()
            yield picture[10:]

        async with open_client(detector, limits=Limits(waiting=1)) as client:
            slow = asyncio.create_task(client.post("/predict", content=slowly()))
            await begun.wait()
            quick = await client.post("/predict", content=picture)
            goes_on.set()
            return quick.status_code, (await slow).status_code, (await client.get("/metrics")).text

    quick, slow, text = asyncio.run(beside_a_slow_one())
    assert (quick, slow) == (200, 200) and "detr_requests_inside 0.0" in text


def test_who_has_left_costs_no_look_and_leaves_no_place_taken(detector, picture):
    async def leaving():
        held = Held(detector)
        async with open_client(held, batch=1) as client:
            first = asyncio.create_task(client.post("/predict", content=picture))
            while not held.sizes:
                await asyncio.sleep(0.01)
            app = client._transport.app
            statuses = [await asked_and_left(app, picture) for _ in range(3)]
            held.go.set()
            await first
            return statuses, held.sizes, (await client.get("/metrics")).text

    statuses, sizes, text = asyncio.run(leaving())
    assert statuses == [499] * 3 and sizes == [1] and "detr_requests_inside 0.0" in text


async def asked_and_left(app, content):
    """The status of a request whose client leaves as soon as it has sent it."""
    messages = [{"type": "http.request", "body": content, "more_body": False}, {"type": "http.disconnect"}]
    scope = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "root_path": ""}
    said = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        said.append(message)

    await app({**scope, "query_string": b"", "headers": []}, receive, send)
    return said[0]["status"]


def test_pictures_together_are_answered_as_alone(detector, picture):
    other = BytesIO()
    Image.fromarray(np.full((50, 20, 3), 90, np.uint8)).save(other, "PNG")
    pictures = [picture, other.getvalue()] * 4

    async def together():
        async with open_client(detector, batch=8, wait=0.5) as client:
            responses = await asyncio.gather(*(client.post("/predict?conf=0", content=each) for each in pictures))
            alone = [await client.post("/predict?conf=0", content=each) for each in pictures[:2]]
            text = (await client.get("/metrics")).text
            return responses, alone, text

    responses, alone, text = asyncio.run(together())
    for response, expected in zip(responses, alone * 4, strict=True):
        ours, theirs = response.json(), expected.json()
        assert (ours["width"], ours["height"]) == (theirs["width"], theirs["height"])
        for field in ("x1", "y1", "x2", "y2"):
            boxes = [[row["box"][field] for row in each["detections"]] for each in (ours, theirs)]
            np.testing.assert_allclose(*boxes, atol=0.01)
    assert 'detr_requests_total{path="/predict",status="200"} 10.0' in text
    assert "detr_requests_inside 0.0" in text and "process_resident_memory_bytes" in text


class Failing(Held):
    def detect(self, group, settings):
        if self.is_open and any(item.frame.image.shape[0] == 30 for item in group):
            raise self.problem
        self.is_open = True
        return Detector.detect(self, group, settings)


@pytest.mark.parametrize(
    ("problem", "status"), [(InputError("answers with NaN"), 500), (MemoryError(), 503), (KeyError("bug"), 500)]
)
def test_trouble_with_one_picture_is_its_own(detector, picture, problem, status):
    other = BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(other, "PNG")

    async def both():
        failing = Failing(detector)
        failing.problem = problem
        async with open_client(failing, wait=0.5) as client:
            asked = [client.post("/predict", content=each) for each in (picture, other.getvalue())]
            return await asyncio.gather(*asked, return_exceptions=True)

    bad, good = asyncio.run(both())
    assert good.status_code == 200
    if isinstance(problem, KeyError):  # a server answers 500 to what it has no words for; this client hands it on
        assert isinstance(bad, KeyError)
    else:
        assert bad.status_code == status


def test_where_the_model_looked_is_a_picture(ask, detector, picture):
    response = ask("/explain?conf=0&index=2", content=picture)
    assert response.status_code == 200 and response.headers["content-type"] == "image/png"
    assert min(Image.open(BytesIO(response.content)).size) > 30
    response = ask("/explain?conf=0&index=5000", content=picture)
    assert response.status_code == 422 and "index 5000: the picture has" in response.json()["error"]


def video(path, frames=5):
    write_video(path, (image for image, _ in moving_shapes(0, frames=frames)))
    return path.read_bytes()


def test_a_video_is_answered_line_by_line(ask, detector, tmp_path):
    content = video(tmp_path / "a.mp4")
    response = ask("/predict/video?conf=0&max_det=3&vid_stride=2", content=content)
    *lines, end = [json.loads(line) for line in response.text.splitlines()]
    assert end == {"frames": 3, "notes": []} and [line["frame"] for line in lines] == [0, 2, 4]
    expected = list(detector(tmp_path / "a.mp4", conf=0, max_det=3, vid_stride=2, stream=True))
    for line, result in zip(lines, expected, strict=True):
        boxes = [[row["box"]["x1"] for row in rows] for rows in (line["detections"], result.summary())]
        np.testing.assert_allclose(*boxes, atol=0.05)
    form = ask("/predict/video?conf=0&max_det=3&vid_stride=2", files={"video": ("v.mp4", content)})
    assert len(form.text.splitlines()) == 4


def test_a_long_video_ends_with_a_word(ask, tmp_path):
    response = ask("/predict/video", content=video(tmp_path / "a.mp4"), options={"limits": Limits(frames=2)})
    end = json.loads(response.text.splitlines()[-1])
    assert end["frames"] == 2 and end["left_out"] == "all after the first 2 frames"


def test_of_a_video_that_breaks_off_every_frame_before_is_answered(ask, tmp_path, monkeypatch):
    class Breaking(FrameReader):
        def __iter__(self):
            yield from islice(super().__iter__(), 3)
            raise InputError(f"{self.source.path}: frames of another size")

    monkeypatch.setattr("detr.serve.videos.FrameReader", Breaking)
    *lines, end = ask("/predict/video", content=video(tmp_path / "a.mp4")).text.splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [0, 1, 2]
    assert json.loads(end) == {"frames": 3, "notes": [], "error": "video: frames of another size"}


def test_a_video_of_huge_frames_is_refused(ask, tmp_path):
    response = ask("/predict/video", content=video(tmp_path / "a.mp4"), options={"limits": Limits(video_pixels=1000)})
    assert response.status_code == 413 and response.json()["error"].startswith("video: frames of ")


def test_one_video_at_a_time(detector, tmp_path):
    content = video(tmp_path / "a.mp4")

    async def two():
        held = Held(detector)
        async with open_client(held) as client:
            first = asyncio.create_task(client.post("/predict/video", content=content))
            while not held.sizes:
                await asyncio.sleep(0.01)
            second = await client.post("/predict/video", content=content)
            held.go.set()
            return second, await first, await client.post("/predict/video", content=content)

    second, first, third = asyncio.run(two())
    assert second.status_code == 503 and second.headers["Retry-After"] == "10"
    assert first.status_code == third.status_code == 200


def test_the_page_comes_from_here_alone(ask):
    page = ask("/", method="GET")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")
    for file in ("page.js", "page.css"):
        assert file in page.text and ask(f"/{file}", method="GET").status_code == 200


@pytest.mark.parametrize("path", ["/detr/predict", "/predict"])
def test_behind_a_proxy_paths_may_have_its_prefix(ask, picture, path):
    options = {"root_path": "/detr"}
    assert ask(path, content=picture, options=options).status_code == 200
    assert "/predict" in ask("/detr/openapi.json", method="GET", options=options).json()["paths"]
    assert ask(f"{path}/", content=picture, options=options).status_code == 404  # and no way to another host


def test_pages_elsewhere_may_ask_where_they_are_named(ask, picture):
    options, origin = {"origins": ["https://a.example"]}, {"origin": "https://a.example"}
    headers = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    assert ask("/predict", method="OPTIONS", headers=headers, options=options).status_code == 200
    refused = ask("/predict", content=b"x", headers=origin, options=options)
    assert refused.status_code == 415 and refused.headers["access-control-allow-origin"] == origin["origin"]
    assert "access-control-allow-origin" not in ask("/predict", content=picture, headers=origin).headers


def test_what_is_served_is_said(ask, detector):
    model = ask("/model", method="GET").json()
    assert model["weights"] == "small" and model["input"] == {"height": 64, "width": 64, "keeps_aspect": False}
    assert model["names"] == {str(index): name for index, name in detector.names.items()}
    assert ask("/health", method="GET").json() == {"status": "ok"}
    assert ask("/ready", method="GET").json() == {"status": "ready"}
    assert ask("/health", method="HEAD").status_code == 200


def test_before_it_is_open_a_server_is_alive_but_not_ready(detector, picture):
    from detr.serve.app import create_app

    async def early():
        transport = httpx.ASGITransport(app=create_app(detector, name="small"))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [
                await client.get("/health"),
                await client.get("/ready"),
                await client.post("/predict", content=picture),
            ]

    assert [response.status_code for response in asyncio.run(early())] == [200, 503, 503]
