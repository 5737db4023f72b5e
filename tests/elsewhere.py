"""A device that isn't here: tensors without numbers stand for those of a GPU, and whatever looks at one is noticed."""

import functools
import gc
import os
import traceback
from contextlib import contextmanager

import numpy as np
import torch
import torch.optim.optimizer as optimizer
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from detr.ops import choice, kernels
from detr.runtime import arriving

DEVICE = "lazy:0"
"""PyTorch's backward pass takes tensors of it without asking for a driver."""
MIXED = "cuda:0"
"""Without a backward pass it can be called a CUDA device, whose own rules then say what is computed in 16 bits."""
FAKE = FakeTensorMode(allow_non_fake_inputs=True)
COPIES = ("aten::_to_copy", "aten::copy_")
UNORDERED = ("aten::nll_loss2d_forward", "aten::grid_sampler_2d_backward", "aten::_adaptive_avg_pool2d_backward")
"""An error on a GPU under `train.deterministic`."""
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_")


class Watching(TorchDispatchMode):
    """Notes what would make a GPU's host wait, or give other bits each time; `looks` counts the copies to the host.
    `types` are those that convolutions were computed in, `wide` the places where a device made float64, which Apple's
    GPUs don't know."""

    def __init__(self):
        super().__init__()
        self.faults, self.looks, self.types, self.wide = set(), 0, set(), set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        answer = operator(*args, **kwargs)
        name = operator._schema.name
        if isinstance(answer, FakeTensor) and answer.dtype == torch.float64 and answer.fake_device.type != "cpu":
            self.wide.add(place())
        if name in COPIES:
            self._copied(name, args, kwargs, answer)
        elif name in UNORDERED:
            self.faults.add(f"{place()}: {name} is not deterministic")
        elif name in INDEXED and len(devices := {each.device.type for each in tensors_of(args) if each.dim()}) > 1:
            self.faults.add(f"{place()}: an index on {' and '.join(sorted(devices))}")
        elif name == "aten::convolution":
            self.types.add(answer.dtype)
        return answer

    def _copied(self, name, args, kwargs, answer):
        source = args[1] if name == "aten::copy_" else args[0]
        if source.device == answer.device:
            return
        goes_on = kwargs.get("non_blocking") or (name == "aten::copy_" and len(args) > 2 and args[2])
        if answer.device.type == "cpu":
            self.looks += not goes_on
        elif not goes_on:
            self.faults.add(f"{place()}: a copy to the device that is waited for, {list(source.shape)} {source.dtype}")


class Mark:
    """An event of a stream: whoever waits for it waits unless there was a look since, behind which it had come."""

    def __init__(self, watching):
        self.watching = watching

    def record(self, stream):
        self.looks = self.watching.looks

    def synchronize(self):
        self.watching.looks = max(self.watching.looks, self.looks + 1)


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


def made_up(tensor):
    """Numbers for an array: what is asked for is true."""
    return np.ones(tensor.shape, bool) if tensor.dtype == torch.bool else np.zeros(tensor.shape)


def sent(module, device=DEVICE):
    """The module, in place, with parameters and buffers on the device: as `to` does it, but many times as fast."""

    def without_numbers(tensor):
        like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return FakeTensor(FAKE, like, torch.device(device))

    with _disable_current_modes():
        return module._apply(without_numbers)


@contextmanager
def elsewhere(monkeypatch):
    """A block whose tensors have no numbers. Whatever needs one of `DEVICE`, or tensors of several devices together, is
    an error; `cpu().numpy()` alone gives some, and counts as a look. `forget_tables` before and after such tests."""
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["lazy"])
    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(torch, "lazy", torch.cpu, raising=False)  # whose random numbers are to be repeated
    monkeypatch.setattr(FakeTensor, "numpy", made_up, raising=False)
    monkeypatch.setattr(choice, "_why_not_triton", lambda value: None)
    with FAKE, Watching() as watching, torch.autograd.set_multithreading_enabled(False), kernels("triton"):
        monkeypatch.setattr(arriving, "_QUEUED", ("cuda", "lazy"))
        monkeypatch.setattr(torch.cuda, "Event", lambda: Mark(watching))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
        yield watching


@contextmanager
def autocast(kind, dtype=torch.float16, enabled=True):
    """As PyTorch's, which would do nothing where there is no CUDA device; nothing on `DEVICE`."""
    if kind != "cuda":
        yield
        return
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def forget_tables():
    """Those without numbers are not to be kept for other tests."""
    for each in gc.get_objects():
        if type(each) is functools._lru_cache_wrapper and each.__module__.startswith("detr."):
            each.cache_clear()
