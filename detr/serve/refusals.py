"""What goes wrong, as an answer of HTTP: a status and one line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from detr.errors import InputError, NotAnImage, TooLarge, UsageError, did_you_mean
from detr.serve.door import refusal
from detr.serve.limits import Refused

Answer = TypeVar("Answer")


def say_no(app: FastAPI, parameters: Sequence[str]) -> None:
    """Have the application answer in one line whatever is raised in it; `parameters` are all that may be asked with."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, partial(_invalid, parameters))
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)


def as_refused(problem: Exception) -> Refused:
    """Of what is wrong with what was sent."""
    if isinstance(problem, MemoryError):
        return Refused(503, "out of memory; try again, or a smaller picture", retry_after=1)
    status = 415 if isinstance(problem, NotAnImage) else 413 if isinstance(problem, TooLarge) else 422
    return Refused(status, " ".join(str(problem).split()))


async def answered(request: Request, future: Future[Answer]) -> Answer:
    """What the network answers; Refused where it can't. It isn't asked on behalf of a client that has left."""
    answer, leaving = asyncio.wrap_future(future), asyncio.ensure_future(_left(request))
    both: list[asyncio.Future[Any]] = [answer, leaving]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise ClientDisconnect
        return answer.result()
    except (MemoryError, torch.OutOfMemoryError):
        raise Refused(503, "out of memory; try again, or a smaller picture", retry_after=1) from None
    except UsageError as problem:
        raise Refused(422, str(problem)) from None
    except InputError as problem:
        raise Refused(500, str(problem)) from None
    finally:
        leaving.cancel()


async def _left(request: Request) -> None:
    """Returns once the client of a request that has come whole has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Refused)
    return refusal(problem)


async def _invalid(parameters: Sequence[str], request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestValidationError)
    first = problem.errors()[0]
    name = str(first["loc"][-1])
    if first["type"] == "extra_forbidden":
        return refusal(Refused(422, f"unknown parameter {name!r}{did_you_mean(name, parameters)}"))
    return refusal(Refused(422, f"{name}: {first['msg'].lower()}, got {first.get('input')!r}"))


async def _http(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    words = f"{request.url.path}: {problem.detail}" if problem.status_code in (404, 405) else str(problem.detail)
    return JSONResponse({"error": words}, status_code=problem.status_code, headers=problem.headers)


async def _gone(request: Request, problem: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it; it is counted
