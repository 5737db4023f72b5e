"""Send `detr serve` four times as many requests as it can answer, for a minute, and hostile ones too.

    python tools/load_server.py [--seconds 60] [--weights rtdetr-tiny] [--write]

First its capacity is measured: pictures per second with half as many requests under way as it has places. Then requests
begin at four times that rate, whether or not the earlier ones are answered, and the answers are counted. Each has to be
200, or 503 with Retry-After. The server's memory is read from its /metrics before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from PIL import Image

from detr.data.shapes import draw_shapes
from detr.engine.benchmark import in_words, machine
from detr.runtime.device import choose_device

OUT = Path(__file__).parent / "results" / "serving.md"
PLACES = 32
TIMES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--weights", default="rtdetr-tiny")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    options = parser.parse_args()
    words = ["serve", "--port", "0", "--queue", str(PLACES), "--weights", options.weights]
    with subprocess.Popen([sys.executable, "-m", "detr", *words], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = re.search(r"http://\S+", server.stdout.readline())
        assert url is not None, "the server did not start"
        try:
            rows = asyncio.run(measured(url[0], options.seconds))
        finally:
            server.terminate()
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    text = f"| {options.weights} | |\n|---|---:|\n{table}\n"
    print(text)
    if options.write:
        command = f"python tools/load_server.py --seconds {options.seconds:g} --weights {options.weights} --write"
        made_on = in_words(machine(choose_device("cpu")))
        title = f"# A server with {TIMES} times as many requests as it can answer"
        about = f"{made_on}; the client runs on the same cores."
        OUT.write_text(f"{title}\n\n{about}\n\n```\n{command}\n```\n\n{text}")


async def measured(url: str, seconds: float) -> list[tuple[str, str]]:
    picture = BytesIO()
    Image.fromarray(draw_shapes(0, "val", 0)[0]).save(picture, "JPEG", quality=90)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:
        capacity = await rate_with(client, picture.getvalue(), PLACES // 2, seconds=10)
        before = await memory(client)
        answers, times = await flooded(url, picture.getvalue(), TIMES * capacity, seconds)
        after = await memory(client)
        again, _ = await flooded(url, picture.getvalue(), TIMES * capacity, seconds)
        at_last = await memory(client)
        hostile = [(name, await status_of(client, **request)) for name, request in HOSTILE.items()]
        last = await client.post("/predict", content=picture.getvalue())
    assert set(answers | again) <= {"200", "503, Retry-After"}, answers | again
    assert last.status_code == 200
    held = (before, after, at_last)
    times.sort()
    median, slow = times[len(times) // 2], times[int(len(times) * 0.99)]
    return [
        (f"capacity with {PLACES // 2} requests under way", f"{capacity:.1f} pictures/s"),
        (f"requests begun in {seconds:g} s", f"{sum(answers.values()):,}"),
        *((f"answered {status}", f"{count:,}") for status, count in sorted(answers.items())),
        ("lost, or answered otherwise", "0"),
        ("answered with 200, per second", f"{answers['200'] / seconds:.1f}"),
        ("seconds to a 200: median, 99th percentile", f"{median:.2f}, {slow:.2f}"),
        ("MB of memory before, after, and after as much again", ", ".join(f"{each / 1e6:.0f}" for each in held)),
        *((f"then: {name}", status) for name, status in hostile),
        ("then: a picture", "200"),
    ]


async def rate_with(client: httpx.AsyncClient, picture: bytes, under_way: int, *, seconds: float) -> float:
    """Pictures per second, each client asking anew when it is answered."""
    until, count = time.monotonic() + seconds, 0

    async def one() -> None:
        nonlocal count
        while time.monotonic() < until:
            (await client.post("/predict", content=picture)).raise_for_status()
            count += 1

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(under_way)))
    return count / (time.monotonic() - began)


async def flooded(url: str, picture: bytes, rate: float, seconds: float) -> tuple[Counter[str], list[float]]:
    """What was answered how often to `rate` requests per second, and the seconds that answers with 200 took.

    Each request has a connection of its own, without a client library: those with a pool of connections spend more time
    on thousands of them than the server does.
    """
    answers: Counter[str] = Counter()
    times: list[float] = []

    async def one() -> None:
        began = time.monotonic()
        try:
            answer = await asyncio.wait_for(_posted(url, picture), 120)
        except (OSError, EOFError, asyncio.TimeoutError) as problem:
            answers[type(problem).__name__] += 1
            return
        answers[answer] += 1
        if answer == "200":
            times.append(time.monotonic() - began)

    began, tasks = time.monotonic(), []
    while (passed := time.monotonic() - began) < seconds:
        tasks += [asyncio.create_task(one()) for _ in range(int(passed * rate) - len(tasks))]
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    return answers, times


async def _posted(url: str, picture: bytes) -> str:
    """The status, and whether it says when to try again."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        head = f"POST /predict HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(picture)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + picture)
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        await reader.read()
    finally:
        writer.close()
    waits = any(header.lower().startswith("retry-after:") for header in headers)
    return f"{status.split()[1]}{', Retry-After' if waits else ''}"


async def memory(client: httpx.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    found = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def status_of(client: httpx.AsyncClient, **request: object) -> str:
    response = await client.post("/predict", **request)  # type: ignore[arg-type]
    return f"{response.status_code} {response.json()['error'][:70]}"


def _png(width: int, height: int, content: bytes) -> bytes:
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", content), (b"IEND", b"")]
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


HOSTILE: dict[str, dict[str, object]] = {
    "a header of 100,000 x 100,000 pixels": {"content": _png(100_000, 100_000, zlib.compress(b""))},
    "a bomb of 9,000 x 9,000 pixels in 240 kB": {"content": _png(9_000, 9_000, zlib.compress(b"\0" * 27_001 * 9_000))},
    "a text": {"content": b"hello" * 100},
    "half a picture": {"content": _png(100, 100, zlib.compress(b"\1" * 301 * 100))[:60]},
    "a file called ../../etc/passwd": {"files": {"file": ("../../etc/passwd", b"root:x:0:0")}},
    "21 MB": {"content": b"\xff\xd8\xff" + b"\0" * 21_000_000},
}

if __name__ == "__main__":
    main()
