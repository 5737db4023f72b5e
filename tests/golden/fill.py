"""Weights and inputs by rule, so that recorded numbers need no stored weights.

Every entry of a state dict follows from its official name and its shape alone: the generator is seeded with the
CRC-32 of the name, and

- counters are zeros; `running_var` is uniform in [0.5, 1.5); otherwise z is standard normal;
- `running_mean` is 0.1 z, a one-dimensional `weight` 1 + 0.1 z, `sampling_offsets.bias` z, whatever else has at most
  one dimension 0.1 z, and the rest z over the root of its number of inputs.
"""

import math
import zlib

import numpy as np
import torch


def filled(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """[shape] float64"""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return 0.5 + generator.random(shape)
    z = np.asarray(generator.standard_normal(shape))
    if len(shape) > 1:
        return z / math.sqrt(math.prod(shape[1:]))
    if name.endswith("sampling_offsets.bias"):
        return z
    return 1 + 0.1 * z if name.endswith("weight") and len(shape) == 1 else 0.1 * z


def filled_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Official names and shapes -> their values, float64."""
    return {name: torch.from_numpy(filled(name, shape)) for name, shape in shapes.items()}


def image(seed: int, count: int, height: int, width: int) -> torch.Tensor:
    """[count, 3, h, w] float64 in [0, 1): the network's input itself."""
    return torch.from_numpy(np.random.default_rng(seed).random((count, 3, height, width)))
