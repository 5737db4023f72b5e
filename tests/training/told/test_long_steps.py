import time

import pytest
import torch

from detr.runtime.distributed import Team
from detr.training.saved.checkpoint import Counters
from detr.training.told.long_steps import LongSteps


@pytest.mark.parametrize(("size", "said"), [(1, ""), (2, "warning: process 2 of 2: step 8 has lasted 0.")])
def test_a_step_that_lasts_is_told_where_it_may_wait_for_another_process(capfd, size, said):
    team = Team(size - 1, size, torch.device("cpu"))
    with LongSteps(team, Counters(step=7), first=0.05) as steps, steps.step():
        until = time.monotonic() + (20 if said else 0.2)
        while time.monotonic() < until and not (told := capfd.readouterr().err):
            time.sleep(0.01)
    assert told.startswith(said) and bool(told) == bool(said)
