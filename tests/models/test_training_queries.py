import torch

from detr.models.denoising import ContrastiveDenoising
from detr.models.training_queries import training_queries
from detr.records import Edges, Predictions, Target

CONTENT, BOXES = torch.rand(1, 5, 4), torch.randn(1, 5, 4)
TARGETS = [Target(torch.tensor([2]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))]


def denoising():
    return ContrastiveDenoising(4, 3, num_denoising=2, label_noise=0.5, box_noise=1.0)


def said_of(queries):
    """Predictions that tell which query they are of."""
    numbers = torch.arange(queries.boxes.shape[1]).float()[None, :, None]
    return Predictions(numbers, numbers, Edges(numbers, numbers))


def test_noised_targets_come_first_and_their_predictions_apart():
    queries = training_queries(CONTENT, BOXES, denoising(), TARGETS)
    assert queries.content.shape == queries.boxes.shape == (1, 4 + 5, 4) and queries.mask.shape == (9, 9)
    output = queries.output((said_of(queries), said_of(queries)), None, said_of(queries))
    for part in (*output.layers, output.start):
        for each in (part.logits, part.boxes, part.edges.logits, part.edges.start):
            assert each.flatten().tolist() == [4, 5, 6, 7, 8]
    for part in (*output.denoising.layers, output.denoising.start):
        assert part.logits.flatten().tolist() == part.edges.start.flatten().tolist() == [0, 1, 2, 3]
    assert output.denoising.num_groups == 2


def test_without_targets_the_queries_are_as_they_were_and_the_embedding_has_a_gradient():
    module = denoising()
    for targets in (None, [], [Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))]):
        queries = training_queries(CONTENT, BOXES, module, targets)
        torch.testing.assert_close(queries.content, CONTENT)
        assert queries.mask is None and queries.output((said_of(queries),), None).denoising is None
        queries.content.sum().backward()
        assert module.class_embedding.weight.grad is not None


def test_without_denoising_there_is_nothing_to_add():
    queries = training_queries(CONTENT, BOXES, None, TARGETS)
    assert queries.content is CONTENT and queries.boxes is BOXES
