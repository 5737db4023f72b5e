import pytest
import torch
import torch.distributed as dist

from detr.errors import InputError
from detr.runtime.distributed import Team, loss_in_words

TEAM = Team(0, 2, torch.device("cpu"))


@pytest.mark.parametrize(("problem", "why"), [
    (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection reset by peer"), "ended"),
    (RuntimeError("[/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms"), "did not answer in time"),
    (dist.DistBackendError("NCCL communicator was aborted on rank 0"), "ended"),
])  # fmt: skip
def test_the_loss_of_another_process_is_a_line(problem, why):
    with pytest.raises(InputError, match=f"^process 1 of 2: another one {why}"), loss_in_words(TEAM):
        raise problem


def test_other_errors_of_a_process_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), loss_in_words(TEAM):
        raise RuntimeError("shapes differ")
