"""In 16 bits all families keep their boxes, and what these are made from, in float32, and learn from finite numbers."""

import pytest
import torch

from detr.criterion import criterion_for
from detr.models import build_model
from detr.records import Target

PRESETS = ["detr-r50", "deformable-detr-r50-two-stage", "dino-r50-4scale", "rtdetrv2-r18", "dfine-n", "deimv2-n"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PRESETS)
def test_boxes_and_losses_are_computed_in_float32_under_autocast(name, dtype, smaller):
    config = smaller(name, num_layers=2)
    if config.backbone.kind == "resnet":
        config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"depth": 10, "width": 8})})
    network = build_model(config).train()
    targets = [Target(torch.arange(count) % 3, torch.rand(count, 4) * 0.4 + 0.3) for count in (2, 1)]
    with torch.autocast("cpu", dtype):
        output = network(torch.rand(2, 3, 64, 64), None, targets)
        losses = criterion_for(network)(output, targets)
    assert output.layers[-1].logits.dtype == dtype  # it is on
    noised = () if output.denoising is None else output.denoising.layers
    for layer in (*output.layers, *noised, output.proposals or output.layers[0]):
        assert layer.boxes.dtype == torch.float32
        if layer.edges is not None:
            assert layer.edges.logits.dtype == layer.edges.start.dtype == torch.float32
    last = output.layers[-1].boxes.detach()
    inner = last[(last > 0) & (last < 1)]
    assert (inner != inner.to(dtype)).float().mean() > 0.5  # not float32 in name alone
    assert all(value.dtype == torch.float32 for value in losses.values())
    sum(losses.values()).backward()
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)
