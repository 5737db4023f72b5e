"""A small detector behind HTTP, in this process."""

import asyncio
from contextlib import asynccontextmanager
from io import BytesIO

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from detr.config import validated
from detr.engine.detector import Detector
from detr.models import build_model
from detr.serve.app import create_app
from detr.training.recipe import Recipe
from tests.small import SMALL


@pytest.fixture(scope="session")
def detector():
    torch.manual_seed(0)
    return Detector(build_model(validated(Recipe, SMALL, "test").model), device="cpu")


@pytest.fixture(scope="session")
def picture():
    """A PNG of noise, 40 x 30."""
    stream = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@asynccontextmanager
async def open_client(detector, **options):
    """A client of a server that is open."""
    app = create_app(detector, name="small", **options)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@pytest.fixture
def ask(detector):
    """`ask(path, content=...)` -> the response of a server with these `options`."""

    def asked(path, *, method="POST", options=None, **request):
        async def once():
            async with open_client(detector, **(options or {})) as client:
                return await client.request(method, path, **request)

        return asyncio.run(once())

    return asked
