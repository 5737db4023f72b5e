"""Two processes share one normaliser, and one of them may have nothing to find."""

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detr.criterion import Criterion
from detr.records import Output, Predictions, Target


class Tiny(nn.Module):
    """Two layers of predictions from one small weight each."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(3, 2 * 5 * 4)
        self.boxes = nn.Linear(3, 2 * 5 * 4)

    def forward(self, images):
        logits = self.logits(images).view(-1, 2, 5, 4).unbind(1)
        boxes = self.boxes(images).view(-1, 2, 5, 4).sigmoid().unbind(1)
        return Output(tuple(Predictions(*each) for each in zip(logits, boxes, strict=True)))


def batch():
    """Four images; only the first two, the share of the first process, have targets: four and one."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(4, 3, generator=generator)
    targets = [
        Target(torch.randint(4, (n,), generator=generator), torch.rand(n, 4, generator=generator)) for n in (4, 1, 0, 0)
    ]
    return images, targets


def fresh():
    torch.manual_seed(0)
    return Tiny()


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images, targets = batch()
    share = slice(2 * rank, 2 * rank + 2)
    network = DistributedDataParallel(fresh())
    losses = Criterion()(network(images[share]), targets[share])
    sum(losses.values()).backward()
    values = {name: value.item() for name, value in losses.items()}
    torch.save((values, [weight.grad for weight in network.parameters()]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Of each process, its losses and its gradients."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(one_of_two, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def alone():
    """The same four images in one process."""
    images, targets = batch()
    network = fresh()
    losses = Criterion()(network(images), targets)
    sum(losses.values()).backward()
    return losses, [weight.grad for weight in network.parameters()]


def test_two_processes_give_the_gradients_of_one_with_the_whole_batch(two_processes):
    _, expected = alone()
    for _, gradients in two_processes:
        for gradient, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-7)


def test_the_mean_of_both_losses_is_that_of_the_whole_batch(two_processes):
    (first, _), (second, _) = two_processes
    expected, _ = alone()
    for name, value in expected.items():
        assert (first[name] + second[name]) / 2 == pytest.approx(value.item(), rel=1e-5)


def test_a_process_without_targets_has_finite_losses_of_every_name(two_processes):
    (first, _), (second, _) = two_processes
    assert list(first) == list(second)
    assert second["loss_vfl"] > 0
    assert second["loss_bbox"] == second["loss_giou"] == second["loss_bbox_aux_0"] == 0
