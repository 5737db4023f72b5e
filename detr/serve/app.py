"""The application: what each path answers."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from io import BytesIO
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from detr.bands import Bands
from detr.engine.detecting import Prepared
from detr.engine.detector import Detector
from detr.engine.explaining import explain
from detr.engine.results import Results
from detr.errors import InputError, UsageError, counted
from detr.explain import Explanation
from detr.image_file import read_image
from detr.runtime.settings import Settings
from detr.serve.batching import Batcher, prepared_alone
from detr.serve.door import VIDEO, Door
from detr.serve.limits import Limits, Refused
from detr.serve.meter import CONTENT_TYPE_LATEST, Meter
from detr.serve.refusals import answered, as_refused, say_no
from detr.serve.uploads import PICTURE_BODY, VIDEO_BODY, Upload, picture_in, video_in
from detr.serve.videos import lines_of
from detr.video import Frame, Source

Answer = TypeVar("Answer")

_LONGEST = 1600  # pixels of a side of a picture of where the model looked
_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'"
_PATHS = frozenset([*_PAGE, "/predict", VIDEO, "/explain", "/model", "/health", "/ready", "/metrics"])


class Asked(BaseModel):
    """What a request may say behind the question mark."""

    model_config = ConfigDict(extra="forbid")

    conf: float = Field(default=0.25, ge=0, le=1)
    classes: str | None = None  # names or indices, with commas
    max_det: int = Field(default=300, ge=1, le=10_000)


class AskedToExplain(Asked):
    index: int = Field(ge=0)  # of the detection in what /predict answers to the same words


class AskedOfVideo(Asked):
    vid_stride: int = Field(default=1, ge=1)


def create_app(
    detector: Detector,
    *,
    name: str,
    limits: Limits | None = None,
    batch: int = 8,
    wait: float = 0.005,
    imgsz: int | None = None,
    root_path: str = "",
    origins: Sequence[str] = (),
) -> FastAPI:
    """The server for one detector, whose weights are called `name`.

    Up to `batch` pictures go through it at once; one waits `wait` seconds for more. `imgsz` as in `Detector.predict`.
    root_path: what a proxy has in front of our paths, whether or not it takes that away. origins: of pages elsewhere
    whose scripts may ask, as browsers write them; `*` for all.
    """
    office = _Office(detector, name, limits or Limits(), batch, wait, imgsz)
    app = FastAPI(title="detr", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=office.open)
    app.add_middleware(Door, limits=office.limits, meter=office.meter, paths=_PATHS, prefix=root_path)
    if origins:  # around the door, so that who is refused may read why
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type"],
            expose_headers=["Retry-After"],
        )
    for path, answer, body in (
        ("/predict", office.predict, PICTURE_BODY),
        (VIDEO, office.predict_video, VIDEO_BODY),
        ("/explain", office.explain, PICTURE_BODY),
    ):
        app.add_api_route(path, answer, methods=["POST"], openapi_extra={"requestBody": body})
    app.add_api_route("/model", office.model, methods=["GET"])
    app.add_api_route("/health", office.health, methods=["GET"])
    app.add_api_route("/ready", office.ready, methods=["GET"])
    app.add_api_route("/metrics", office.metrics, methods=["GET"])
    for path, (file, kind) in _PAGE.items():
        app.add_api_route(path, functools.partial(_page, file, kind), methods=["GET"], include_in_schema=False)
    say_no(app, [*AskedToExplain.model_fields, *AskedOfVideo.model_fields])
    return app


class _Office:
    """The answers to all paths, and what they share."""

    def __init__(
        self, detector: Detector, name: str, limits: Limits, batch: int, wait: float, imgsz: int | None
    ) -> None:
        self.detector, self.name, self.limits, self.imgsz = detector, name, limits, imgsz
        self.meter = Meter()
        self._batch, self._wait = batch, wait
        self._own = detector.settings(imgsz=imgsz)  # refuses what the detector can't do before anybody listens
        self._videos = 0
        self._decoding = asyncio.Semaphore(min(4, os.cpu_count() or 1))  # whole pictures in memory at a time
        self._explaining = asyncio.Semaphore(1)  # the same, of those that stay there until they are answered
        self._batcher: Batcher | None = None

    @asynccontextmanager
    async def open(self, app: FastAPI) -> AsyncIterator[None]:
        batcher = Batcher(self.detector, most=self._batch, wait=self._wait, tell=self.meter.batch)
        settings = self._own
        height, width = settings.input.frame
        empty = np.zeros((height, width, settings.input.channels), np.uint8)
        await asyncio.wrap_future(batcher.look(self._prepared(empty, settings), settings))
        self._batcher = batcher
        try:
            yield
        finally:
            self._batcher = None
            await run_in_threadpool(batcher.close)

    async def predict(self, request: Request, asked: Annotated[Asked, Query()]) -> JSONResponse:
        settings = self._settings(asked)
        prepared = await self._decoded(await picture_in(request), lambda image: self._prepared(image, settings))
        result = await answered(request, self._working.look(prepared, settings))
        return JSONResponse(said(result))

    async def explain(self, request: Request, asked: Annotated[AskedToExplain, Query()]) -> Response:
        settings, upload = self._settings(asked), await picture_in(request)
        async with self._explaining:
            frame = Frame(await self._decoded(upload, lambda image: image), Source("image", "upload"))
            look = functools.partial(explain, self.detector, frame, settings, longest=_LONGEST)
            _, found = await answered(request, self._working.alone(look))
            if asked.index >= len(found):
                raise Refused(
                    422, f"index {asked.index}: the picture has {counted(len(found), 'detection')}, counted from 0"
                )
            return Response(await run_in_threadpool(_png, found[asked.index]), media_type="image/png")

    async def predict_video(self, request: Request, asked: Annotated[AskedOfVideo, Query()]) -> StreamingResponse:
        settings, batcher = self._settings(asked), self._working
        if self._videos >= self.limits.videos:
            raise Refused(503, f"{self._videos} videos are being looked at; try again", retry_after=10)
        held = AsyncExitStack()
        self._videos += 1
        held.callback(self._video_is_done)
        try:
            path = await held.enter_async_context(video_in(request))
            lines = await run_in_threadpool(
                lines_of, path, settings, batcher,
                stride=asked.vid_stride, limits=self.limits, ahead=self._batch,
            )  # fmt: skip
        except BaseException as problem:
            await held.aclose()
            raise as_refused(problem) if isinstance(problem, InputError) else problem from None

        async def answer() -> AsyncIterator[str]:
            async with held:
                try:
                    while (line := await run_in_threadpool(next, lines, None)) is not None:
                        yield line
                finally:
                    await run_in_threadpool(lines.close)

        return StreamingResponse(answer(), media_type="application/x-ndjson")

    def _video_is_done(self) -> None:
        self._videos -= 1

    async def model(self) -> dict[str, Any]:
        config = self.detector.config
        height, width = config.input.frame
        return {
            "weights": self.name,
            "arch": config.arch,
            "input": {"height": height, "width": width, "keeps_aspect": config.input.keeps_aspect},
            "names": self.detector.names,
        }

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def ready(self) -> dict[str, str]:
        assert self._working
        return {"status": "ready"}

    async def metrics(self) -> Response:
        return Response(self.meter.text(), media_type=CONTENT_TYPE_LATEST)

    @property
    def _working(self) -> Batcher:
        if self._batcher is None:
            raise Refused(503, "not ready", retry_after=1)
        return self._batcher

    def _settings(self, asked: Asked) -> Settings:
        words = None if asked.classes is None else [word.strip() for word in asked.classes.split(",") if word.strip()]
        try:
            return self.detector.settings(conf=asked.conf, classes=words, max_det=asked.max_det, imgsz=self.imgsz)
        except UsageError as problem:
            raise as_refused(problem) from None

    async def _decoded(self, upload: Upload, use: Callable[[Bands], Answer]) -> Answer:
        """What `use` makes of the picture, which then can be forgotten."""

        def decode() -> Answer:
            channels = self.detector.config.input.channels
            content = BytesIO(upload.picture())
            return use(read_image(content, name="image", channels=channels, most_pixels=self.limits.pixels))

        async with self._decoding:
            try:
                return await run_in_threadpool(decode)
            except (InputError, MemoryError) as problem:
                raise as_refused(problem) from None

    def _prepared(self, image: Bands, settings: Settings) -> Prepared:
        return prepared_alone(Frame(image, Source("image", "upload")), settings)


def said(result: Results) -> dict[str, Any]:
    """A result as JSON has it."""
    height, width = result.orig_shape
    speed = {name: round(milliseconds, 3) for name, milliseconds in result.speed.items()}
    return {"width": width, "height": height, "detections": result.summary(), "speed": speed}


def _png(found: Explanation) -> bytes:
    stream = BytesIO()
    Image.fromarray(found.plot()).save(stream, "PNG")
    return stream.getvalue()


async def _page(file: str, kind: str) -> Response:
    content = resources.files("detr.serve").joinpath(file).read_bytes()
    return Response(content, media_type=kind, headers={"Content-Security-Policy": _POLICY})
