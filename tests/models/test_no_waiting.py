"""A GPU is kept busy by a host that runs ahead of it: no forward or backward pass of a training looks at numbers."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detr.models import build_model
from detr.records import Target

WAITING = {
    "aten._local_scalar_dense": "item, tolist, bool",
    "aten.nonzero": "nonzero, or an index by a mask",
    "aten.masked_select": "a choice by a mask",
    "aten._unique2": "unique",
    "aten.unique_dim": "unique",
    "aten.equal": "equal",
    "aten.is_nonzero": "bool",
    "aten.bincount": "bincount",
    "aten.repeat_interleave": "repeats without their sum",
}
PRESETS = ["detr-r50", "deformable-detr-r50-two-stage", "dino-r50-4scale", "rtdetrv2-r18-dsp", "dfine-n", "deimv2-n"]


class Watching(TorchDispatchMode):
    """Notes what would make a GPU's host wait."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = str(operator).rsplit(".", 1)[0]
        chosen = args[1] if name in ("aten.index", "aten.index_put", "aten.index_put_") else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in chosen)
        fixed_size = name == "aten.repeat_interleave" and (kwargs or {}).get("output_size") is not None
        if (name in WAITING and not fixed_size) or by_mask:
            self.seen.add(f"{name}: {WAITING.get(name, 'an index by a mask')}")
        return operator(*args, **(kwargs or {}))


def target(count):
    return Target(torch.arange(count) % 3, torch.rand(count, 4) * 0.4 + 0.3)


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_of_training_does_not_wait_for_the_device(name, smaller):
    network = build_model(smaller(name, num_layers=2)).train()
    images, targets = torch.rand(2, 3, 96, 96), [target(2), target(0)]
    with Watching() as watching:
        output = network(images, None, targets)
        last = output.layers[-1]
        (last.logits.sum() + last.boxes.sum()).backward()
    assert not watching.seen


def test_what_waits_is_noticed():
    values = torch.rand(4)
    for look in (lambda: values[0].item(), lambda: values[values > 2], lambda: values.nonzero()):
        with Watching() as watching:
            look()
        assert watching.seen
