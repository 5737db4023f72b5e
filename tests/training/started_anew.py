"""What a test of `test_distributed.py` runs: two processes meet, end, and meet again as torchrun starts them anew."""

import os
import signal
import socket
import time
import traceback

import torch
import torch.distributed as dist

from detr.runtime.distributed import joined

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
os.environ |= {
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": str(port),
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def forked(act) -> int:
    child = os.fork()
    if child:
        return child
    signal.alarm(60)  # who waits for somebody that never comes is ended
    try:
        act()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def keep_table() -> None:
    """As torchrun does, over all starts."""
    table = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    time.sleep(60)
    del table


def meet(rank: int, start: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RESTART_COUNT": str(start)}
    if start and rank == 0:
        time.sleep(1)  # the other one is there first
    with joined(torch.device("cpu")) as team:
        assert team.total(rank + 1) == 3


keeper = forked(keep_table)
for start in range(2):
    children = [forked(lambda rank=rank, start=start: meet(rank, start)) for rank in range(2)]
    for child in children:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os.kill(keeper, signal.SIGKILL)
os.waitpid(keeper, 0)
