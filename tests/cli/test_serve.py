import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from io import BytesIO

import pytest
import uvicorn
from click.testing import CliRunner
from PIL import Image

from detr.cli.serve import command
from detr.errors import UsageError
from tests import programs


def serve(*words):
    return programs.started("-m", "detr", "serve", *words)


def first_line(server):
    while "\n" not in server.said()[0]:
        assert server.running(), server.said()
        time.sleep(0.02)
    return server.said()[0].splitlines()[0]


def post(url, content):
    with urllib.request.urlopen(urllib.request.Request(url, data=content), timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_it_answers_until_it_is_told_to_end(number, code, word, as_told):
    stream = BytesIO()
    Image.new("RGB", (50, 40), "red").save(stream, "JPEG")
    as_json = number == signal.SIGINT
    with serve("--port", "0", *["--json"] * as_json) as server:
        line = first_line(server)
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        assert line.startswith("rtdetr-tiny on ") or as_told(line)["url"] == url
        assert post(f"{url}/predict?conf=0.9", stream.getvalue())["width"] == 50
        with pytest.raises(urllib.error.HTTPError, match="415"):
            post(f"{url}/predict", b"no picture")
        server.send_signal(number)
        done = server.end()
    assert done.returncode == code and done.stderr.strip().splitlines()[-1] == word
    assert len(done.stdout.splitlines()) == 1


def test_a_port_that_is_taken_is_wrong_usage():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with serve("--port", port) as server:
            done = server.end()
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: --host 127.0.0.1 --port {port}: Address already in use\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "rtdetr-tyny"], "did you mean 'rtdetr-tiny'"),
        (["--imgsz", "100"], "the nearest is 96"),
        (["--host", " "], "--host is empty"),
        (["--queue-mb", "5", "--max-mb", "20"], "--queue-mb 5: expected 20 (--max-mb) or more"),
        (["--root-path", "detr/"], "--root-path detr: expected a path such as /detr"),
        (["--origin", "https://a.example/"], "--origin https://a.example/: expected"),
    ],
)
def test_what_makes_no_sense_is_said_before_anybody_is_answered(words, said):
    refused = CliRunner().invoke(command, ["--port", "0", *words])
    assert isinstance(refused.exception, UsageError) and said in str(refused.exception)


def test_an_idle_connection_stays_open_longer_than_proxies_keep_theirs(monkeypatch):
    """Whoever closes first while the other asks loses a request: nginx and load balancers wait for 60 seconds."""
    asked = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: asked.append(server.config))
    # It ends the handlers of others, and TensorBoard's (absl's) closes the stream that pytest reads.
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda config: None)
    done = CliRunner().invoke(command, ["--port", "0"])
    assert done.exit_code == 0, done.output
    assert asked[0].timeout_keep_alive > 60
