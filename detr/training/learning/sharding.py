"""Weights, gradients and the optimizer's memory shared out among the processes (FSDP2), where one GPU is too small.

A tensor is then a DTensor: each process holds its own rows of it. What reads all of one has to be asked by all
processes at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from detr.models.network import DetectionNetwork
from detr.runtime.distributed import Team, waiting


def shard(network: DetectionNetwork, team: Team) -> DetectionNetwork:
    """The same network, in place: each stage of the backbone is put together while it computes, the rest for a step."""
    mesh = init_device_mesh(team.device.type, (team.size,))
    backbone: Any = network.backbone
    for stage in backbone.stages:
        if any(True for _ in stage.parameters()):
            fully_shard(stage, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def sharded(network: DetectionNetwork, team: Team) -> DetectionNetwork:
    """The network as a team trains it in parts; its norms see what `shared` lets them see."""
    if team.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    else:
        network.register_forward_pre_hook(lambda *_: team.follow(network.buffers()))
    return shard(network, team)


def own(value: Tensor) -> Tensor:
    """This process's part of a tensor; all of it where it isn't shared out."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """All of a tensor, on the CPU if it was shared out; asked by all processes at once."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def shared_out_like(one: Tensor, value: Tensor) -> Tensor:
    """`value`, of which every process has all, as `one` is shared out; as it is where `one` isn't."""
    if not isinstance(one, DTensor):
        return value
    return distribute_tensor(value.to(one.device), one.device_mesh, one.placements, src_data_rank=None)


def load(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """`load_state_dict` of whole tensors."""
    ours = network.state_dict()
    network.load_state_dict({name: shared_out_like(ours.get(name, value), value) for name, value in state.items()})


def all_whole(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """To be asked by all processes at once."""
    with waiting("the weights of all are put together"):
        return {name: whole(value) for name, value in values.items()}


@torch.no_grad()
def first_not_finite(network: nn.Module) -> str | None:
    """The name of the first parameter, in this process's part of it."""
    for name, value in network.named_parameters():
        if not own(value).isfinite().all():
            return name
    return None
