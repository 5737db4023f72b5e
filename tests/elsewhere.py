"""A device that isn't here: tensors without numbers stand for those of a GPU, and whatever looks at one is noticed."""

import functools
import gc
import os
import traceback
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
import torch.optim.optimizer as optimizer
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from detr.ops import choice, kernels

DEVICE = "lazy:0"
"""PyTorch's backward pass takes tensors of it without asking for a driver."""
FAKE = FakeTensorMode(allow_non_fake_inputs=True)
COPIES = ("aten::_to_copy", "aten::copy_")
UNORDERED = ("aten::nll_loss2d_forward", "aten::grid_sampler_2d_backward", "aten::_adaptive_avg_pool2d_backward")
"""An error on a GPU under `train.deterministic`."""
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_")


class Watching(TorchDispatchMode):
    """Notes what would make a GPU's host wait, or give other bits each time; `looks` counts the copies to the host."""

    def __init__(self):
        super().__init__()
        self.faults, self.looks = set(), 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        answer = operator(*args, **kwargs)
        name = operator._schema.name
        if name in COPIES:
            self._copied(name, args, kwargs, answer)
        elif name in UNORDERED:
            self.faults.add(f"{place()}: {name} is not deterministic")
        elif name in INDEXED and len(devices := {each.device.type for each in tensors_of(args) if each.dim()}) > 1:
            self.faults.add(f"{place()}: an index on {' and '.join(sorted(devices))}")
        return answer

    def _copied(self, name, args, kwargs, answer):
        source = args[1] if name == "aten::copy_" else args[0]
        if source.device == answer.device:
            return
        if answer.device.type == "cpu":
            self.looks += 1
        elif not (kwargs.get("non_blocking") or (name == "aten::copy_" and len(args) > 2 and args[2])):
            self.faults.add(f"{place()}: a copy to the device that is waited for, {list(source.shape)} {source.dtype}")


def tensors_of(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_of(value)


def place():
    """The line of ours that is at work."""
    frames = [frame for frame in traceback.extract_stack() if f"{os.sep}detr{os.sep}" in frame.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "here"


@contextmanager
def elsewhere(monkeypatch):
    """A block whose tensors have no numbers. Whatever needs one of `DEVICE`, or tensors of several devices together, is
    an error; `cpu().numpy()` alone gives zeros, and counts as a look. `forget_tables` before and after such tests."""
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["lazy"])
    monkeypatch.setattr(torch, "autocast", lambda *kind, **settings: nullcontext())
    monkeypatch.setattr(FakeTensor, "numpy", lambda self: np.zeros(self.shape), raising=False)
    monkeypatch.setattr(choice, "_why_not_triton", lambda value: None)
    with FAKE, Watching() as watching, torch.autograd.set_multithreading_enabled(False), kernels("triton"):
        yield watching


def forget_tables():
    """Those without numbers are not to be kept for other tests."""
    for each in gc.get_objects():
        if type(each) is functools._lru_cache_wrapper and each.__module__.startswith("detr."):
            each.cache_clear()
