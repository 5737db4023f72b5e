import pytest
import torch
from torch import nn

from detr.models.proposals import ProposalSelection
from detr.models.queries import Memory

SHAPES = ((4, 6), (2, 3))


def selection(ranked_by="best slot"):
    select = ProposalSelection(8, 3, ranked_by=ranked_by)
    nn.init.normal_(select.box_head.layers[-1].weight)
    return select


def memory(padding=None):
    return Memory(torch.randn(2, 30, 8), SHAPES, padding)


@pytest.mark.parametrize("ranked_by", ["first slot", "best slot"])
def test_the_best_come_first_with_their_own_scores_and_boxes(ranked_by):
    found = selection(ranked_by)(memory(), 5)
    ranks = found.all.logits[..., 0] if ranked_by == "first slot" else found.all.logits.amax(-1)
    for image in range(2):
        assert found.positions[image].tolist() == ranks[image].argsort(descending=True)[:5].tolist()
        torch.testing.assert_close(found.chosen.boxes[image], found.all.boxes[image, found.positions[image]])
        torch.testing.assert_close(found.chosen.logits[image], found.all.logits[image, found.positions[image]])


def test_padding_proposes_nothing_but_the_box_of_empty_places():
    padding = torch.zeros(2, 30, dtype=torch.bool)
    padding[:, 24:] = True
    given = memory(padding)
    select = selection()
    found = select(given, 30)
    assert found.all.boxes[:, 24:].isinf().all() and found.all.boxes[:, :24].isfinite().all()
    assert (found.all.boxes.sigmoid()[:, 24:] == 1).all()
    torch.testing.assert_close(found.all.logits[:, 24:], found.all.logits[:, 24:25].expand(-1, 6, -1))
    given.tokens[:, 24:] = 1e6
    torch.testing.assert_close(select(given, 30).all.logits, found.all.logits)


def test_fewer_positions_than_queries_give_what_there_is():
    assert selection()(memory(), 100).positions.shape == (2, 30)


def test_new_proposals_lie_where_the_positions_are():
    found = ProposalSelection(8, 3, ranked_by="best slot")(memory(), 1)
    boxes = found.all.boxes[0].sigmoid()
    torch.testing.assert_close(boxes[0], torch.tensor([0.5 / 6, 0.5 / 4, 0.05, 0.05]))
    torch.testing.assert_close(boxes[29], torch.tensor([2.5 / 3, 1.5 / 2, 0.1, 0.1]))
