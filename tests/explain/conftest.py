"""Small networks of every kind of attention, which look somewhere else for each query."""

import pytest
import torch

from detr.backbones.resnet import ResNetConfig
from detr.classes import COCO
from detr.models import build_model


@pytest.fixture(scope="session")
def small_network(smaller):
    """Makes one of a preset, in evaluation, with a backbone of next to nothing."""

    def make(name, *, num_layers=2):
        torch.manual_seed(0)
        config = smaller(name, num_layers=num_layers)
        backbone = ResNetConfig(depth=10, width=8, stages=config.backbone.stages)
        network = build_model(config.model_copy(update={"backbone": backbone}), classes=COCO)
        for module in network.modules():  # a fresh network looks the same way whatever it sees
            for part in ("offsets", "weights"):
                if isinstance(getattr(module, part, None), torch.nn.Linear):
                    torch.nn.init.normal_(getattr(module, part).weight, std=0.3)
        return network.eval().requires_grad_(False)

    return make
