"""Networks whose queries are learned one by one, so that there are never more of them than that."""

from __future__ import annotations

from detr.errors import UsageError
from detr.models.network import DetectionNetwork


class LearnedQueriesNetwork(DetectionNetwork):
    """`config.num_queries` are learned, and the first `config.eval_queries` of them run in evaluation; None: all."""

    @property
    def num_running(self) -> int:
        """How many queries run now."""
        return self.config.num_queries if self.training else self.config.eval_queries or self.config.num_queries

    def set_queries(self, num_queries: int) -> None:
        """How many queries run in evaluation from now on: the first ones, and no more than were learned."""
        if not 1 <= num_queries <= self.config.num_queries:
            raise UsageError(f"{num_queries} queries: expected 1 to {self.config.num_queries}, which were learned")
        self.config = self.config.model_copy(update={"eval_queries": num_queries})
