"""Two processes share one normaliser, and one of them may have nothing to find."""

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detr.criterion import FAMILIES, Criterion
from detr.records import Edges, Output, Predictions, Target
from tests import programs

ARCHS = ("rtdetr", "detr", "dfine")  # every kind of normaliser


class Tiny(nn.Module):
    """Two layers of predictions from one small weight each."""

    def __init__(self, *, edges):
        super().__init__()
        self.logits = nn.Linear(3, 2 * 5 * 5)
        self.boxes = nn.Linear(3, 2 * 5 * 4)
        self.edges = nn.Linear(3, 2 * 5 * 4 * 7) if edges else None

    def forward(self, images):
        logits = self.logits(images).view(-1, 2, 5, 5).unbind(1)
        boxes = self.boxes(images).view(-1, 2, 5, 4).sigmoid().unbind(1)
        edges = [None, None]
        if self.edges is not None:
            edges = [Edges(each, boxes[0].detach()) for each in self.edges(images).view(-1, 2, 5, 4, 7).unbind(1)]
        return Output(tuple(Predictions(*each) for each in zip(logits, boxes, edges, strict=True)))


def batch():
    """Four images; only the first two, the share of the first process, have targets: four and one."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(4, 3, generator=generator)
    targets = [
        Target(torch.randint(4, (n,), generator=generator), torch.rand(n, 4, generator=generator)) for n in (4, 1, 0, 0)
    ]
    return images, targets


def fresh(arch):
    torch.manual_seed(0)
    return Tiny(edges=FAMILIES[arch].edges)


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images, targets = batch()
    share = slice(2 * rank, 2 * rank + 2)
    found = {}
    for arch in ARCHS:
        network = DistributedDataParallel(fresh(arch))
        losses = Criterion(FAMILIES[arch].config)(network(images[share]), targets[share])
        sum(losses.values()).backward()
        values = {name: value.item() for name, value in losses.items()}
        found[arch] = values, [weight.grad for weight in network.parameters()]
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Of each process, the losses and the gradients by arch."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(one_of_two, (folder,), nprocs=2, start_method=programs.METHOD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def alone(arch):
    """The same four images in one process."""
    images, targets = batch()
    network = fresh(arch)
    losses = Criterion(FAMILIES[arch].config)(network(images), targets)
    sum(losses.values()).backward()
    return losses, [weight.grad for weight in network.parameters()]


@pytest.mark.parametrize("arch", ARCHS)
def test_two_processes_give_the_gradients_of_one_with_the_whole_batch(two_processes, arch):
    _, expected = alone(arch)
    for found in two_processes:
        _, gradients = found[arch]
        for gradient, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_mean_of_both_losses_is_that_of_the_whole_batch(two_processes, arch):
    (first, _), (second, _) = (found[arch] for found in two_processes)
    expected, _ = alone(arch)
    for name, value in expected.items():
        assert (first[name] + second[name]) / 2 == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_process_without_targets_has_finite_losses_of_every_name(two_processes, arch):
    (first, _), (second, _) = (found[arch] for found in two_processes)
    assert list(first) == list(second)
    assert second["loss_ce" if arch == "detr" else "loss_vfl"] > 0
    assert second["loss_bbox"] == second["loss_giou"] == second["loss_bbox_aux_0"] == 0
