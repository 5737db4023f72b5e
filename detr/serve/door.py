"""Who is let in: no more requests and bytes than there is room for, no longer bodies, no slower ones."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detr.serve.limits import Limits, Refused
from detr.serve.meter import Meter

VIDEO = "/predict/video"

_SECONDS_TO_BEGIN = 10  # of the server that takes its place
_USUAL_SECONDS = 0.2  # of a request, before any has been answered


class Door:
    """Around the application. Whoever is let in is answered; the others get 503, 413 or 408 at once.

    A picture's request is inside once its body is there, so that slow senders keep no place from others. The body of
    one that finds no room is read and thrown away, for who is sending doesn't listen. `prefix` is
    what a proxy has in front of our paths; it may have taken it away itself.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, meter: Meter, paths: frozenset[str], prefix: str = "") -> None:
        self.app, self.limits, self.meter, self.paths, self.prefix = app, limits, meter, paths, prefix
        self.inside = 0
        self._bytes = 0  # of the bodies inside
        self._usual = _USUAL_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the body is left out where it is sent
        path = scope["path"].removeprefix(self.prefix)
        scope = {**scope, "method": method, "path": path, "root_path": self.prefix}
        began, status = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if scope["method"] == "POST":
                await self._post(scope, receive, noted)
            else:
                await self.app(scope, receive, noted)
        except asyncio.CancelledError:  # the server ends, and has waited long enough for this one
            if not status:
                await refusal(Refused(503, "the server is ending", retry_after=_SECONDS_TO_BEGIN))(
                    scope, receive, noted
                )
        finally:
            known = path if path in self.paths else "other"
            self.meter.request(known, status or 500, time.monotonic() - began)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_video = scope["path"] == VIDEO
        most = self.limits.video_body if is_video else self.limits.body
        place = _Place(self)
        take = _into_a_file if is_video else self._take
        body = _Body(receive, most, self.limits.upload_seconds, take=take, enter=place.take)
        try:
            body.require_short(scope)
            if is_video:  # whose bytes nothing else counts
                try:
                    place.take()
                except Refused:
                    await body.drain()
                    raise
        except Refused as no:
            return await refusal(no)(scope, receive, send)
        try:
            await self.app(scope, body.receive, send)
        finally:
            self._bytes -= body.taken
            place.give_back()

    def enter(self) -> None:
        """Refused where all places are taken."""
        if self.inside >= self.limits.waiting:
            raise Refused(503, "all places are taken; try again", retry_after=self._seconds_to_wait())
        self._step(1)

    def leave(self, seconds: float) -> None:
        self._step(-1)
        self._usual = 0.9 * self._usual + 0.1 * seconds

    def _seconds_to_wait(self) -> int:
        """About as long as one that comes in now would be inside."""
        return max(1, math.ceil(self._usual))

    def _take(self, count: int) -> int:
        """Room for so many bytes more of a body, all of them to be given back. Refused where there is none."""
        if self._bytes + count > self.limits.bodies:
            raise Refused(503, "no room for more bytes; try again", retry_after=self._seconds_to_wait())
        self._bytes += count
        return count

    def _step(self, count: int) -> None:
        self.inside += count
        self.meter.inside.set(self.inside)


class _Place:
    """One of those inside, for one request."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._since: float | None = None  # when it was taken

    def take(self) -> None:
        if self._since is None:
            self._door.enter()
            self._since = time.monotonic()

    def give_back(self) -> None:
        if self._since is not None:
            self._door.leave(time.monotonic() - self._since)


class _Body:
    """A request's body as it arrives; once it is whole, `enter` is called. Refused: 413 where it is too long, 408 where
    it takes too long, and whatever `take` and `enter` say. Who is told to try again has sent all of it before, and so
    hears the answer.
    """

    def __init__(
        self,
        receive: Receive,
        most: int,
        seconds: float,
        *,
        take: Callable[[int], int],
        enter: Callable[[], None],
    ) -> None:
        self._receive, self._most, self._seconds, self._take, self._enter = receive, most, seconds, take, enter
        self._until = time.monotonic() + seconds
        self._length, self._is_whole = 0, False
        self.taken = 0

    def require_short(self, scope: Scope) -> None:
        said = dict(scope["headers"]).get(b"content-length", b"")
        if said.isdigit() and int(said) > self._most:
            raise self._too_long()

    async def drain(self) -> None:
        while not self._is_whole:
            if (await self._arrived())["type"] == "http.disconnect":
                return

    async def receive(self) -> Any:
        if self._is_whole:  # what comes now is that the client has left, whenever that is
            return await self._receive()
        message = await self._arrived()
        try:
            self.taken += self._take(len(message.get("body", b"")))
        except Refused:
            await self.drain()
            raise
        if self._is_whole:
            self._enter()
        return message

    async def _arrived(self) -> Any:
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except asyncio.TimeoutError:
            raise Refused(408, f"the body did not arrive within {self._seconds:g} seconds") from None
        self._length += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._length > self._most:
            raise self._too_long()
        return message

    def _too_long(self) -> Refused:
        return Refused(413, f"a body of more than {self._most:,} bytes")


def _into_a_file(count: int) -> int:
    """No room for bytes that aren't kept in memory."""
    return 0


def refusal(no: Refused) -> JSONResponse:
    return JSONResponse({"error": no.words}, status_code=no.status, headers=no.headers)
