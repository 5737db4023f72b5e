"""Several processes that train one network: who we are, what we share, how we agree. `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from detr.errors import InputError, UsageError
from detr.runtime.roll_call import RollCall

Anything = TypeVar("Anything")
_CPU = torch.device("cpu")
MEETING = "where all meet"


@dataclass(frozen=True)
class Team:
    """This process among those that train together; alone, it is rank 0 of 1."""

    rank: int
    size: int
    device: torch.device
    meets_on: torch.device = _CPU  # where the hosts compare numbers of their own; on a GPU they would wait for it

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def largest(self, value: float) -> float:
        """The largest of the processes' values."""
        return self.asking_largest(value)()

    def asking_largest(self, value: float) -> Callable[[], float]:
        """`largest` when it is called, which waits until all have asked; nobody waits before."""
        if self.size == 1:
            return lambda: value
        shared = torch.tensor(value, device=self.meets_on, dtype=torch.float64)
        work = dist.all_reduce(shared, dist.ReduceOp.MAX, async_op=True)

        def answer() -> float:
            with waiting():
                work.wait()
            return float(shared)

        return answer

    def total(self, value: float) -> float:
        """The sum over the processes."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, device=self.meets_on, dtype=torch.float64)
        with waiting():
            dist.all_reduce(shared)
            return float(shared)

    def any(self, flag: Tensor) -> Tensor:
        """Whether it is true in one of the processes, [] bool on the device; nobody waits to know."""
        if self.size == 1:
            return flag
        shared = flag.float()
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return shared > 0

    def gathered(self, value: Anything) -> list[Anything]:
        """The value of each process, by rank."""
        if self.size == 1:
            return [value]
        return gathered(value)

    def agreed(self, decide: Callable[[], Anything]) -> Anything:
        """What the leading process decides, in all."""
        if self.size == 1:
            return decide()
        box = [decide() if self.leads else None]
        with waiting():
            dist.broadcast_object_list(box, src=0, device=self.meets_on)
        return cast(Anything, box[0])

    def follow(self, values: Iterable[Tensor]) -> None:
        """Give the values of the leading process to all, in place."""
        if self.size > 1:
            with waiting():
                for value in values:
                    dist.broadcast(value, src=0)

    def wait(self) -> None:
        if self.size > 1:
            with waiting():
                dist.barrier()


def gathered(value: Anything, what: str = MEETING) -> list[Anything]:
    """The value of each process that was met, by rank; `what` it is that is waited in."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    with waiting(what):
        dist.all_gather_object(values, value)
    return values


def waiting(what: str = MEETING) -> AbstractContextManager[None]:
    """A block in which the others are waited for; one that stands still meanwhile is told of."""
    return nullcontext() if _Present.roll_call is None else _Present.roll_call.waiting(what)


class _Present:
    """Of the team that is joined, as the process group of PyTorch is."""

    roll_call: RollCall | None = None


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """The team this process belongs to, by the environment that `torchrun` sets; it is left at the end of the block.

    Inside, its GPU is the current one: what asks for no device, such as a loader's pinned memory, takes no other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield Team(0, 1, device)
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UsageError(f"process {local_rank} has no GPU of its own: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    already = dist.is_initialized()
    if not already:
        _meet("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    team = Team(rank, size, device, _CPU if "cpu:" in dist.get_backend_config() else device)
    try:
        with loss_in_words(team), _in_touch(team):
            yield team
    finally:
        if not already:
            dist.destroy_process_group()


@contextmanager
def _in_touch(team: Team) -> Iterator[None]:
    """While the block lasts, who stands still is told of."""
    if _Present.roll_call is not None or "MASTER_ADDR" not in os.environ:
        yield
        return
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # A connection of its own: that of the process group may be held by who waits.
    store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False)
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    with RollCall(team.rank, team.size, dist.PrefixStore(f"start {start}", store)).held() as _Present.roll_call:
        try:
            yield
        finally:
            _Present.roll_call = None


@contextmanager
def loss_in_words(team: Team) -> Iterator[None]:
    """InputError in place of what gloo and NCCL say when another process is gone or does not answer."""
    try:
        yield
    except RuntimeError as problem:
        if not isinstance(problem, dist.DistError) and "/gloo/" not in str(problem):
            raise
        why = "did not answer in time" if "imed out" in str(problem) else "ended"
        raise InputError(
            f"process {team.rank + 1} of {team.size}: another one {why}, so this one ends too; what that one said, or "
            "the system's log, has the cause (detr --debug ... shows what was waited for)"
        ) from problem


def _meet(backend: str) -> None:
    """Begin the process group by the environment.

    `torchrun` keeps its table of addresses when it starts all processes anew, so that one could take that of a dead one
    for its successor's (pytorch/pytorch#135712); on one machine each start therefore has a table of its own. Over
    several, starts aren't counted alike everywhere; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 helps.
    """
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if start == "0" or os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        dist.init_process_group(backend)
        return
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group(backend, store=dist.PrefixStore(f"start {start}", store), rank=rank, world_size=size)


def apart(learner: Any, team: Team, *, wanted: bool) -> AbstractContextManager[Any]:
    """A block in which gradients are only added up in each process, not yet over the team, if that is `wanted`."""
    if team.size == 1:
        return nullcontext()
    if isinstance(learner, DistributedDataParallel):
        return learner.no_sync() if wanted else nullcontext()
    learner.set_requires_gradient_sync(not wanted)
    return nullcontext()


def shared(network: nn.Module, team: Team) -> nn.Module:
    """The network as the team trains it: gradients are averaged in backward, BatchNorm sees all images on GPUs."""
    if team.size == 1:
        return network
    if team.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    gpu = [team.device.index] if team.device.type == "cuda" else None
    with waiting("the start"):
        return DistributedDataParallel(network, device_ids=gpu, gradient_as_bucket_view=True)
