import asyncio
import socket

import uvicorn

from detr.serve import connection
from detr.serve.connection import Connection


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def conversation(*parts, pause=0.0):
    """What a server says to these bytes, sent one after the other, until it hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(answer, http=Connection, lifespan="off", log_level="error", timeout_keep_alive=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        try:
            return await asyncio.wait_for(reader.read(), 20)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()
            server.should_exit = True
            await serving


def test_a_head_that_does_not_arrive_ends_the_connection(monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    assert asyncio.run(conversation(b"")) == b""
    assert asyncio.run(conversation(b"GET / HTTP/1.1\r\n", b"a: b\r\n", b"a: b\r\n", pause=0.05)) == b""


def test_a_body_may_take_longer_than_a_head(monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n"
    assert asyncio.run(conversation(head, b"x", b"y", pause=0.3)).endswith(b"ok")
