"""Two networks side by side, of which one is transformers'."""

import math

import torch


@torch.no_grad()
def shake(network):
    """Weights with which the signal neither dies nor explodes, and nothing is zero or one by default."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() > 1 and not name.endswith("points_scale"):
            tensor.normal_(0, math.sqrt(1.2 / tensor[0].numel()))
        elif name.endswith("weight"):
            tensor.uniform_(0.8, 1.2)
        elif name.endswith("bias"):
            tensor.add_(torch.randn_like(tensor) * 0.1)


@torch.no_grad()
def difference(network, mine, images):
    """Largest difference of logits and of boxes. Equal scores may come in another order, so queries are paired."""
    expected, output = network(images), mine(images).layers[-1]
    assert expected.logits.std() > 0.1
    worst = 0.0
    for index in range(len(images)):
        rows = torch.cat([expected.logits[index], expected.pred_boxes[index]], 1)
        mine_rows = torch.cat([output.logits[index], output.boxes[index]], 1)
        nearest = torch.cdist(rows.double(), mine_rows.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        assert len(nearest.unique()) == len(nearest)
        worst = max(worst, float((rows - mine_rows[nearest]).abs().max()))
    return worst


def pictures(size):
    """Large soft blobs with noise: every place looks different."""
    blobs = torch.nn.functional.interpolate(torch.randn(2, 3, 6, 6), size=(size, size), mode="bilinear")
    return blobs + 0.5 * torch.rand(2, 3, size, size)
