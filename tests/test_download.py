import hashlib
import http.client
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from shutil import rmtree

import pytest

from detr.download import HttpsOnly, fetch
from detr.errors import InputError, NotWritten

CONTENT = bytes(range(256)) * 4000
URL = "https://weights.example/files/model.pth"


class Server(ThreadingHTTPServer):
    """A file server with moods."""

    mood = "well"
    etag = '"1"'
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if server.mood == "missing":
            return self.send_error(404)
        if server.mood == "leads to http":
            self.send_response(302)
            self.send_header("Location", "http://weights.example/model.pth")
            return self.end_headers()
        content = b"<!DOCTYPE html><html>sign in</html>" if server.mood == "sign in" else CONTENT
        start = 0
        if asked and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", server.etag)
        self.end_headers()
        rest = content[start:]
        self.wfile.write(rest[: len(rest) // 2] if server.mood == "breaks off" else rest)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def opener(server):
    """Whatever host is asked for over https, the local server answers."""

    class Local(urllib.request.HTTPSHandler):
        def https_open(self, request):
            request.host = f"127.0.0.1:{server.server_port}"
            return self.do_open(http.client.HTTPConnection, request)

    return urllib.request.build_opener(Local, HttpsOnly)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "model.pth"


def names(path):
    return sorted(entry.name for entry in path.parent.iterdir())


def test_a_file_is_downloaded_whole(path, opener):
    seen = []
    fetch(URL, path, sha256=hashlib.sha256(CONTENT).hexdigest(), progress=lambda *now: seen.append(now), opener=opener)
    assert path.read_bytes() == CONTENT
    assert names(path) == ["model.pth"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_broken_download_goes_on_where_it_stopped(path, opener, server):
    server.mood = "breaks off"
    with pytest.raises(InputError, match="run again to go on"):
        fetch(URL, path, opener=opener)
    assert not path.exists()
    half = len(CONTENT) // 2
    assert path.with_name("model.pth.part").read_bytes() == CONTENT[:half]
    server.mood = "well"
    seen = []
    fetch(URL, path, progress=lambda *now: seen.append(now), opener=opener)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={half}-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert names(path) == ["model.pth"]


def test_halves_of_two_versions_are_never_joined(path, opener, server):
    path.parent.mkdir()
    path.with_name("model.pth.part").write_bytes(b"old version")
    path.with_name("model.pth.part.etag").write_text('"0"')
    fetch(URL, path, opener=opener)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_no_obstacle(path, opener, server):
    path.parent.mkdir()
    path.with_name("model.pth.part").write_bytes(CONTENT)
    path.with_name("model.pth.part.etag").write_text(server.etag)
    fetch(URL, path, opener=opener)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-", None]


def test_an_interrupted_download_keeps_what_came(path, opener):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(URL, path, progress=interrupt, opener=opener)
    assert names(path) == ["model.pth.part", "model.pth.part.etag"]


def test_a_wrong_hash_deletes_the_file(path, opener):
    with pytest.raises(InputError, match="wrong SHA-256"):
        fetch(URL, path, sha256="0" * 64, opener=opener)
    assert not any(name.startswith("model.pth") and not name.endswith(".etag") for name in names(path))


def test_a_web_page_is_not_taken_for_weights(path, opener, server):
    server.mood = "sign in"
    with pytest.raises(InputError, match="a web page"):
        fetch(URL, path, opener=opener)
    assert not path.exists()


def test_the_server_s_refusal_is_told_with_the_place_for_the_file(path, opener, server):
    server.mood = "missing"
    with pytest.raises(InputError, match="404") as problem:
        fetch(URL, path, opener=opener)
    assert URL in str(problem.value) and str(path) in str(problem.value)


def test_no_server_is_an_input_error(path, opener, server):
    server.server_port = 1  # where nobody listens
    with pytest.raises(InputError, match="cannot download"):
        fetch(URL, path, opener=opener)


@pytest.mark.parametrize("url", ["http://weights.example/a.pth", "file:///etc/passwd", "ftp://x/a.pth", "a.pth"])
def test_only_https_is_followed(url, path):
    with pytest.raises(InputError, match="only https"):
        fetch(url, path)


def test_nor_is_a_redirect_to_http(path, opener, server):
    server.mood = "leads to http"
    with pytest.raises(InputError, match="only https"):
        fetch(URL, path, opener=opener)


def test_a_disk_that_is_full_is_not_the_servers_fault_and_the_rest_comes_later(path, opener, server):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(
            NotWritten, match=r"^cannot write .*model\.pth: larger than allowed; when that is mended, run"
        ):
            fetch(URL, path, opener=opener)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(path) == ["model.pth.part", "model.pth.part.etag"]
    fetch(URL, path, opener=opener)
    assert path.read_bytes() == CONTENT and server.ranges[-1].startswith("bytes=")


def test_a_folder_that_is_removed_meanwhile_is_said(path, opener):
    message = r"^cannot write .*model\.pth: No such file or directory; when that is mended, run again$"
    with pytest.raises(NotWritten, match=message):
        fetch(URL, path, progress=lambda *_: rmtree(path.parent, ignore_errors=True), opener=opener)
