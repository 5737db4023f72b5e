import torch

from detr.models.queries import Memory, QuerySelection, memory_of

SHAPES = ((4, 4), (2, 2))


def selection():
    return QuerySelection(8, 3).requires_grad_(False)


def padded_memory(tokens):
    """The right half of the finer level and all but the first position of the coarser one are padding."""
    padding = torch.zeros(1, 20, dtype=torch.bool)
    padding[0, [2, 3, 6, 7, 10, 11, 14, 15, 17, 18, 19]] = True
    return Memory(tokens, SHAPES, padding)


def test_memory_is_level_after_level_each_row_by_row_with_the_padding_of_its_places():
    fine, coarse = torch.arange(16.0).view(1, 1, 4, 4), 100 + torch.arange(4.0).view(1, 1, 2, 2)
    padding = torch.zeros(1, 8, 8, dtype=torch.bool)
    padding[:, :, 4:] = True
    memory = memory_of([fine, coarse], padding)
    assert memory.shapes == SHAPES
    assert memory.tokens[0, :, 0].tolist() == [*range(16), 100, 101, 102, 103]
    assert memory.padding[0].tolist() == [False, False, True, True] * 4 + [False, True] * 2
    assert memory_of([fine, coarse], None).padding is None


def test_the_best_scored_positions_are_chosen_best_first_with_what_lies_there():
    select, memory = selection(), Memory(torch.randn(2, 20, 8), SHAPES)
    chosen, all_of_them = select(memory, 5), select(memory, 100)
    best = all_of_them.proposals.logits.amax(-1)
    assert all_of_them.positions.shape == (2, 20) and (best.diff() <= 0).all()
    assert torch.equal(chosen.positions, all_of_them.positions[:, :5])
    rows = torch.gather(select.norm(select.embed(memory.tokens)), 1, chosen.positions[..., None].expand(-1, -1, 8))
    torch.testing.assert_close(chosen.content, rows)
    torch.testing.assert_close(chosen.proposals.logits, select.score_head(rows))
    torch.testing.assert_close(chosen.proposals.boxes, chosen.boxes.sigmoid())


def test_boxes_start_in_the_middle_of_their_cells():
    select = selection()
    for parameter in select.box_head.parameters():
        parameter.zero_()
    found = select(Memory(torch.randn(1, 20, 8), SHAPES), 20)
    boxes = found.boxes.sigmoid()[0, found.positions[0].argsort()]
    torch.testing.assert_close(boxes[6], torch.tensor([2.5 / 4, 1.5 / 4, 0.05, 0.05]))  # second row, third column
    torch.testing.assert_close(boxes[17], torch.tensor([1.5 / 2, 0.5 / 2, 0.1, 0.1]))


def test_padding_is_never_chosen_and_what_lies_in_it_changes_nothing():
    select, tokens = selection(), torch.randn(1, 20, 8)
    found = select(padded_memory(tokens), 9)
    assert sorted(found.positions[0].tolist()) == [0, 1, 4, 5, 8, 9, 12, 13, 16]
    outside = padded_memory(tokens).padding[..., None]
    other = select(padded_memory(torch.where(outside, 1e3, tokens)), 12)
    torch.testing.assert_close(other.boxes[:, :9], found.boxes)
    first, second = (select(padded_memory(torch.where(outside, value, tokens)), 20) for value in (1e3, -7.0))
    torch.testing.assert_close(first.proposals.logits, second.proposals.logits)
