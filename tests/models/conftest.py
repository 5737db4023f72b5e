"""A network small enough to train in a test, and the rule that fills weights for recorded numbers."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.models.hybrid_encoder import HybridEncoderConfig
from detr.models.rtdetr import DecoderConfig, RTDETRConfig, RTDETRNetwork
from detr.records import Target

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def small_config():
    return RTDETRConfig(
        num_queries=7,
        num_denoising=4,
        backbone=ResNetConfig(depth=10, width=8),
        encoder=HybridEncoderConfig(channels=16, heads=2, hidden=16, expansion=0.5, depth=0.34),
        decoder=DecoderConfig(channels=16, heads=2, hidden=16, num_layers=3, points=(2, 1, 1)),
    )


@pytest.fixture
def small(small_config):
    return RTDETRNetwork(small_config, Classes.from_names(["cat", "dog", "bird"]))


@pytest.fixture
def targets():
    """Two objects, one, none."""
    return [
        Target(torch.tensor([0, 2]), torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.3, 0.2]])),
        Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.4, 0.4]])),
        Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)),
    ]


@pytest.fixture(scope="session")
def fill():
    return SimpleNamespace(**runpy.run_path(str(GOLDEN / "fill.py")))
