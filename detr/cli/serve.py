"""`detr serve`: a detector behind HTTP, and a page to try it on."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.backend import backend_options, exported_runner
from detr.cli.help import Verb
from detr.cli.plain import Finite, print_json
from detr.errors import UsageError
from detr.extras import require

if TYPE_CHECKING:
    from detr.engine.detector import Detector

_LOCAL = ("127.0.0.1", "localhost", "::1")
_SECONDS_TO_FINISH = 15  # what is under way when it is told to end; Kubernetes gives 30 for that and for leaving
_SECONDS_TO_TAKE = 30
_SECONDS_KEPT_OPEN = 75  # an idle connection; proxies, who should be the first to close, wait for 60


@click.command(cls=Verb, context_settings={"show_default": True})
@click.option("--weights", default="rtdetr-tiny", help="A release, a file of weights, or an exported .onnx or .xml.")
@flags.model
@click.option("--host", default="127.0.0.1", help="Address to listen at; 0.0.0.0 for all. There is no password.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0: any that is free.")
@click.option("--batch", type=click.IntRange(min=1), default=8, help="Pictures of several requests at once.")
@click.option("--wait", type=Finite(0, 60_000), default=5.0, help="Milliseconds a picture waits for others.")
@click.option("--queue", type=click.IntRange(min=1), default=64, help="Requests at a time; 503 for more.")
@click.option("--queue-mb", type=Finite(min=0.001), default=256.0, help="Of their pictures' bytes; 503 for more.")
@click.option("--max-mb", type=Finite(min=0.001), default=20.0, help="Of a picture's request; 413 for more.")
@click.option("--max-megapixels", type=Finite(min=0.01), default=50.0, help="Of a picture; 413 for more.")
@click.option("--max-video-mb", type=Finite(min=0.001), default=256.0, help="Of a video; 413 for more.")
@click.option("--max-video-megapixels", type=Finite(min=0.01), default=10.0, help="Of a frame; 413 for more.")
@click.option("--max-frames", type=click.IntRange(min=1), default=10_000, help="Of a video; the rest is left out.")
@click.option("--root-path", default="", metavar="/PATH", help="What a proxy has in front of the paths here.")
@click.option(
    "--origin", "origins", multiple=True, metavar="URL", help="Scripts of pages from there may ask (CORS); * for all."
)
@flags.side
@flags.parts
@flags.device
@backend_options
@flags.as_json("Where it answers")
def command(host: str, port: int, as_json: bool, **options: Any) -> None:
    """Answer requests with what is in their pictures, until Ctrl-C.

    POST a picture to /predict (the bytes, a form with one file, or JSON with base64) for JSON; to /explain?index=0 for
    a picture of where the model looked; a video to /predict/video for a line of JSON per frame. GET / is a page to drop
    pictures on, /metrics is for Prometheus, /health and /ready for whoever keeps it running.

    \b
      detr serve --weights rtdetr-r18
      curl --data-binary @street.jpg 'http://127.0.0.1:8000/predict?conf=0.4'
      detr serve --weights model.onnx --host 0.0.0.0 --port 80 --queue 32
    """
    require("serve", "serving")
    asked = _asked(**options)
    with _listening(host, port) as listener:
        import uvicorn

        from detr.serve.app import create_app
        from detr.serve.connection import Connection

        detector = _detector(**options)
        app = create_app(detector, **asked)
        if host not in _LOCAL:
            click.echo(f"warning: whoever reaches {host} can use this server; there is no password", err=True)
        place = f"[{host}]" if ":" in host else host
        url = f"http://{place}:{listener.getsockname()[1]}"
        if as_json:
            print_json({"url": url, "weights": options["weights"], "device": str(detector.device)})
        click.echo(f"{options['weights']} on {detector.device}: {url} (Ctrl-C ends)", err=as_json)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=_SECONDS_KEPT_OPEN,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _asked(**options: Any) -> dict[str, Any]:
    """What `create_app` takes. UsageError for what makes no sense."""
    from detr.serve.limits import Limits

    limits = Limits(
        waiting=options["queue"],
        body=int(options["max_mb"] * 1e6),
        bodies=int(options["queue_mb"] * 1e6),
        pixels=int(options["max_megapixels"] * 1e6),
        video_body=int(options["max_video_mb"] * 1e6),
        video_pixels=int(options["max_video_megapixels"] * 1e6),
        frames=options["max_frames"],
    )
    if limits.bodies < limits.body:
        raise UsageError(f"--queue-mb {options['queue_mb']:g}: expected {options['max_mb']:g} (--max-mb) or more")
    root_path = options["root_path"].rstrip("/")
    if root_path and not root_path.startswith("/"):
        raise UsageError(f"--root-path {root_path}: expected a path such as /{root_path}")
    for origin in options["origins"]:
        if origin != "*" and not re.fullmatch(r"https?://[^/]+", origin):
            raise UsageError(f"--origin {origin}: expected * or what a browser says, such as https://example.com")
    return {
        "name": "/".join(Path(options["weights"]).parts[-2:]),  # visitors need not know where it lies
        "limits": limits,
        "batch": options["batch"],
        "wait": options["wait"] / 1000,
        "imgsz": options["imgsz"],
        "root_path": root_path,
        "origins": options["origins"],
    }


def _detector(**options: Any) -> Detector:
    from detr.engine.detector import Detector

    given = {name: options[name] for name in ("model", "layers", "queries", "device")}
    asked = {name: options[name] for name in ("backend", "int8", "calibrate", "imgsz")}
    runner = exported_runner(options["weights"], **given, **asked)
    return Detector(options["weights"], **given) if runner is None else Detector(runner)


def _listening(host: str, port: int) -> socket.socket:
    """UsageError for an address that can't be had."""
    if not host.strip():
        raise UsageError("--host is empty; expected an address such as 127.0.0.1, or 0.0.0.0 for all")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux: who doesn't take an answer is given up, and its place free
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _SECONDS_TO_TAKE)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as problem:
        listener.close()
        raise UsageError(f"--host {host} --port {port}: {problem.strerror or problem}") from None
    return listener
