"""A place that is asked about: where it was lost, in the words that people read."""

import numpy as np
import pytest
import torch

from detr.boxes import giou, iou
from detr.classes import COCO
from detr.explain import recording
from detr.explain.explanations import View
from detr.explain.place import ask

IMAGE = np.zeros((64, 96, 3), np.uint8)
NAMES = COCO.as_dict()
ALL, NOTHING = [0.0] * len(NAMES), [1.0] * len(NAMES)


@pytest.fixture(params=["detr-r50", "deformable-detr-r50", "dino-r50-4scale", "dfine-n"])
def asked(request, small_network):
    """Asks a place, or the one where the network's first query ends."""
    network = small_network(request.param)
    with recording(network) as recorded, torch.inference_mode():
        last = network(torch.randn(1, 3, 64, 96)).layers[-1]
    x, y, width, height = (last.boxes[0, 0] * torch.tensor([96, 64, 96, 64])).tolist()
    own = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def answer(box=own, *, classes=None, least=ALL):
        return ask(recorded, network, IMAGE, box, NAMES, classes=classes, least=least)

    return answer


def test_what_is_there_is_said_with_its_score_and_overlap(asked):
    found, nearest = asked()
    assert found.said.startswith(f"{nearest[0].name} {nearest[0].score:.2f} is there, with IoU ")
    assert found.end == pytest.approx(1, abs=1e-4) and len(nearest) == 3


def test_a_score_below_the_threshold_is_named_with_it(asked):
    found, nearest = asked(least=NOTHING)
    assert found.said == f"{nearest[0].name} scores {nearest[0].score:.2f} there, and is shown from 1.00 on"
    assert nearest[0].steps[-1].score == pytest.approx(nearest[0].score, abs=1e-6)


def test_another_class_is_named_where_it_is_what_is_shown(asked):
    best = asked()[1][0].label
    other = (best + 1) % len(NAMES)
    least = [0.0 if label == best else 1.0 for label in range(len(NAMES))]
    found, nearest = asked(classes=[other], least=least)
    assert found.said.startswith(f"taken for {NAMES[best]} ") and f"; {NAMES[other]} scores " in found.said
    assert {each.label for each in nearest} == {other}


def test_a_place_that_no_query_is_near_is_lost_by_the_selection_or_the_decoder(asked, request):
    found, _ = asked((95.0, 63.0, 95.5, 63.5))
    kind = request.node.callspec.params["asked"]
    if kind in ("detr-r50", "deformable-detr-r50"):
        assert found.start is None and found.said.startswith("no query ended there: the nearest box has IoU 0.0")
    else:
        assert found.start < 0.1 and found.said.startswith("no query started there (the nearest start has IoU 0.0")
        assert found.said.endswith("; nor does the encoder propose a box there")


def test_where_no_box_touches_the_place_the_nearest_are_shown(asked):
    place = torch.tensor([95.0, 63.0, 95.5, 63.5])
    _, nearest = asked(place.tolist())
    _, others = asked((0.0, 0.0, 0.5, 0.5))
    values = [float(giou(torch.tensor(each.box), place)) for each in (*nearest, *others)]
    assert min(values[:3]) >= max(values[3:])


def test_a_proposal_that_was_not_chosen_is_told_with_its_rank(small_network):
    network = small_network("dfine-n")
    network.set_queries(3)
    with recording(network) as recorded, torch.inference_mode():
        network(torch.randn(1, 3, 64, 96))
    proposals, count = View(recorded, network, *IMAGE.shape[:2], 0).proposed()
    apart = [row for row in range(count, len(proposals)) if iou(proposals[row], proposals[:row])[0].max() < 0.1]
    found, _ = ask(recorded, network, IMAGE, proposals[apart[0]].tolist(), NAMES, classes=None, least=ALL)
    assert found.said.endswith(
        f"; number {apart[0] + 1} of the encoder's {len(proposals)} proposals is the first there, and the best 3 start"
    )
