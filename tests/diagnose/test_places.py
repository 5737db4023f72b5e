import numpy as np
import pytest
import torch
from made_sets import truths
from torch import nn

from detr.classes import Classes
from detr.diagnose.places import WHY, PlaceWatch, starting_boxes, unwatchable
from detr.models import build_model
from detr.models.postprocess import Scoring
from detr.models.queries import Queries
from detr.records import Output, Predictions
from detr.runtime.runner import TorchRunner

CAT, DOG = 0, 1
FAR = (280, 180, 10, 10)
OBJECTS = [(10, 10, 40, 40), (80, 10, 40, 40), (150, 10, 40, 40), (220, 10, 40, 40)]


def relative(boxes):
    """xywh of a picture of 300 x 200 -> cxcywh in [0, 1], [1, Q, 4]."""
    x, y, w, h = torch.tensor(boxes, dtype=torch.float32).unbind(-1)
    return torch.stack(((x + w / 2) / 300, (y + h / 2) / 200, w / 300, h / 200), -1)[None]


class Starting(nn.Module):
    def __init__(self, boxes):
        super().__init__()
        self.boxes = boxes

    def forward(self):
        logits = self.boxes.logit()
        return Queries(logits, logits, Predictions(logits, self.boxes), torch.zeros(1, self.boxes.shape[1]))


class Made(nn.Module):
    """Starts and ends its queries where it is told to; classes are named in the other order than the data's."""

    scoring, classes = Scoring(), Classes.from_names(["dog", "cat"])

    def __init__(self, starts, ends, scores):
        super().__init__()
        self.queries, self.ends, self.logits = (
            Starting(relative(starts)),
            relative(ends),
            torch.tensor([scores]).logit(),
        )

    def forward(self, images, padding=None):
        self.queries()
        return Output((Predictions(self.logits, self.ends),))


def places(starts, ends, scores, truth):
    runner = TorchRunner(Made(starts, ends, scores))
    watch = PlaceWatch(runner, truth)
    watch([0], [(200, 300)], runner(torch.zeros(1, 3, 8, 8)))
    return watch.places()


def test_a_missed_object_was_not_started_at_or_left_or_scored_too_low():
    truth = truths(*((0, CAT, *box) for box in OBJECTS), (1, CAT, *OBJECTS[0]))
    starts = [FAR, OBJECTS[1], OBJECTS[2], OBJECTS[3]]
    ends = [FAR, FAR, OBJECTS[2], OBJECTS[3]]
    seen = places(starts, ends, [[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]], truth)
    assert seen.start[:4] == pytest.approx([0, 1, 1, 1], abs=1e-3)
    assert seen.end[:4] == pytest.approx([0, 0, 1, 1], abs=1e-3)
    assert seen.score[:4] == pytest.approx([0, 0, 0.1, 0.9], abs=1e-3)
    assert [WHY[why] for why in seen.why_missed()[:3]] == list(WHY)
    assert np.isnan(seen.start[4]), "its image was not seen"


def test_of_several_queries_on_an_object_the_best_counts():
    truth = truths((0, DOG, *OBJECTS[0]))
    near = (12, 10, 40, 40)
    seen = places([near, OBJECTS[0]], [near, OBJECTS[0]], [[0.7, 0.2], [0.3, 0.9]], truth)
    assert seen.score.tolist() == pytest.approx([0.7]) and seen.end.tolist() == pytest.approx([1], abs=1e-3)


@pytest.mark.parametrize(
    "name", ["rtdetr-r18", "dfine-n", "deimv2-atto", "dino-r50-4scale", "deformable-detr-r50-two-stage"]
)
def test_every_selecting_family_says_where_its_queries_start(name, smaller):
    network = build_model(smaller(name, num_layers=1), classes=Classes.from_names(["cat", "dog"])).eval()
    answers = []
    network.queries.register_forward_hook(lambda module, given, answer: answers.append(starting_boxes(answer)))
    assert unwatchable(TorchRunner(network), sliced=False) is None
    with torch.no_grad():
        output = network(torch.rand(2, 3, 64, 64))
    assert answers[0].shape == output.layers[-1].boxes.shape
    assert ((answers[0] >= 0) & (answers[0] <= 1)).all()


@pytest.mark.parametrize("name", ["detr-r50", "deformable-detr-r50"])
def test_of_learned_queries_it_is_said_that_they_start_nowhere(name, smaller):
    network = build_model(smaller(name, num_layers=1), classes=Classes.from_names(["cat"]))
    assert "learned" in unwatchable(TorchRunner(network), sliced=False)
    assert "tiles" in unwatchable(TorchRunner(network), sliced=True)
    assert "exported" in unwatchable(object(), sliced=False)
