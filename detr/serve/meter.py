"""What the server counts, in the form that Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["CONTENT_TYPE_LATEST", "Meter"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Meter:
    """Requests by path and status, how long they took, how many are inside, batches, and the process itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("detr_requests", "Requests answered.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "detr_request_seconds", "From the head of a request to its answer.", ["path"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.inside = Gauge("detr_requests_inside", "Requests that were let in and wait.", registry=self.registry)
        self.batches = Histogram("detr_batch_size", "Pictures at once.", buckets=_SIZES, registry=self.registry)
        self.inference = Histogram(
            "detr_inference_seconds", "Of a batch in the network.", buckets=_SECONDS, registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def batch(self, size: int, seconds: float) -> None:
        self.batches.observe(size)
        self.inference.observe(seconds)

    def request(self, path: str, status: int, seconds: float) -> None:
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
