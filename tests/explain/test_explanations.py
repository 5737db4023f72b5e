"""What is said of a detection, in pixels of its picture."""

import numpy as np
import pytest
import torch

from detr.classes import COCO
from detr.errors import InputError, UsageError
from detr.explain import explanations, recording
from detr.explain.levels import Level
from detr.explain.maps import largest, spread_out
from detr.explain.readings import interval_of
from detr.models.postprocess import select
from detr.records import Detections

FAMILIES = ("detr-r50", "deformable-detr-r50", "dino-r50-4scale", "dfine-n")
WIDE = np.zeros((40, 100, 3), np.uint8)
TALL = np.zeros((120, 30, 3), np.uint8)


@pytest.fixture(scope="module", params=FAMILIES)
def seen(request, small_network):
    """A network, what was recorded of it, and its answer."""
    network = small_network(request.param)
    with recording(network) as recorded, torch.inference_mode():
        output = network(torch.randn(1, 3, 64, 96))
    return network, recorded, output


def found_in(seen, image):
    network, _, output = seen
    return select(output, [image.shape[:2]], scoring=network.scoring, max_det=3)[0]


def explained(seen, image, found=None):
    network, recorded, _ = seen
    return explanations(recorded, network, image, found_in(seen, image) if found is None else found, COCO.as_dict())


def test_the_last_layer_says_the_detection(seen):
    for each, box, score in zip(
        explained(seen, WIDE), found_in(seen, WIDE).boxes, found_in(seen, WIDE).scores, strict=True
    ):
        assert each.num_layers == len(each.steps) == 2
        assert each.box == each.steps[-1].box == tuple(box.tolist())
        assert each.score == each.steps[-1].score == float(score)
        assert all(0 < step.score < 1 for step in each.steps), "also where DETR's query says another class first"


def test_pixels_are_those_of_the_picture_whatever_its_shape(seen):
    factor = np.array([TALL.shape[1] / WIDE.shape[1], TALL.shape[0] / WIDE.shape[0]])
    for wide, tall in zip(explained(seen, WIDE), explained(seen, TALL), strict=True):
        np.testing.assert_allclose(np.reshape(wide.box, (2, 2)) * factor, np.reshape(tall.box, (2, 2)), rtol=1e-5)
        if wide.points is not None:
            np.testing.assert_allclose(wide.points.xy * factor, tall.points.xy, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(wide.points.weights, tall.points.weights)
        if wide.proposal is not None:
            np.testing.assert_allclose(np.array(wide.proposal.xy) * factor, tall.proposal.xy, rtol=1e-6)
        if wide.sides is not None:
            ends = np.tile(factor, 2)
            np.testing.assert_allclose(wide.sides.expected * ends, tall.sides.expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(wide.sides.spread * ends, tall.sides.spread, rtol=1e-3, atol=1e-4)


def test_expected_sides_are_the_boxes_of_the_layers(seen):
    for each in explained(seen, WIDE):
        if each.sides is not None:
            np.testing.assert_allclose(each.sides.expected, [step.box for step in each.steps], atol=1e-4)
            np.testing.assert_allclose(each.sides.probabilities.sum(-1), 1, rtol=1e-5)


def test_the_middle_of_a_distribution_is_found_whichever_way_its_bins_run():
    chances, places = torch.tensor([0.05, 0.1, 0.5, 0.3, 0.05]), torch.tensor([0.0, 10, 20, 30, 40])
    assert interval_of(chances, places).tolist() == [10, 30]
    assert interval_of(chances.flip(0), places.flip(0)).tolist() == [10, 30], "left and upper sides count downwards"
    assert interval_of(torch.tensor([0.0, 0, 1, 0, 0]), places).tolist() == [20, 20]


def test_the_map_is_the_weights_spread_out(seen):
    for each in explained(seen, WIDE):
        for layer, head in ((None, None), (1, None), (0, 2)):
            map = each.map(layer=layer, head=head)
            assert map.shape == WIDE.shape[:2] and map.min() >= 0
            np.testing.assert_allclose(map.sum(), each.chosen(layer=layer, head=head).sum(), rtol=1e-4)
        by_level = [each.map(level=level) for level in range(len(each.levels))]
        np.testing.assert_allclose(np.sum(by_level, 0), each.map(), atol=1e-6)


def test_what_dense_positions_hold_is_followed_back_through_the_encoder(small_network):
    network = small_network("detr-r50")
    with recording(network) as recorded, torch.inference_mode():
        output = network(torch.randn(1, 3, 96, 160))
    [found] = select(output, [WIDE.shape[:2]], scoring=network.scoring, max_det=1)
    [one] = explanations(recorded, network, WIDE, found, COCO.as_dict())
    layers = [one.encoder.weights(range(15), layer=layer).mean(1) for layer in (0, 1)]
    expected = (np.eye(15) + layers[1]) / 2 @ (np.eye(15) + layers[0]) / 2
    np.testing.assert_allclose(one.encoder.sources, expected, atol=1e-6)
    np.testing.assert_allclose(one.encoder.sources.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(one.chosen(), one.chosen(direct=True) @ expected, atol=1e-6)
    assert not np.allclose(one.map(), one.map(direct=True))


def test_a_layer_or_head_that_is_not_there_is_refused(seen):
    [first, *_] = explained(seen, WIDE)
    with pytest.raises(UsageError, match="layer 2: this model has 2 layers, 0 to 1"):
        first.map(layer=2)
    with pytest.raises(UsageError, match="head 9: this model has 4 heads"):
        first.plot(head=9)


def test_another_pictures_detection_is_refused(seen):
    other = Detections(torch.tensor([[3.0, 3.0, 4.0, 4.0]]), torch.tensor([0.9]), torch.tensor([5]))
    with pytest.raises(InputError, match="doesn't give that detection any more"):
        explained(seen, WIDE, other)


def test_no_detection_needs_no_explanation(seen):
    assert explained(seen, WIDE, Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())) == []


def test_numbers_are_plain(seen):
    plain = explained(seen, TALL)[0].to_json()
    assert ("attention" in plain) == ("points" not in plain)
    if "points" in plain:
        np.testing.assert_allclose(np.sum(plain["points"]["weights"], -1), 1, atol=1e-4)
    else:
        np.testing.assert_allclose(np.sum(plain["attention"], (-2, -1)), 1, atol=1e-4)
    assert len(plain["layers"]) == 2 and plain["layers"][-1]["box"] == plain["box"]


def test_pictures_show_all_kinds(seen):
    [first, *_] = explained(seen, TALL)
    drawn = [first.plot(show=show) for show in ("both", "map")]
    assert all(each.dtype == np.uint8 and each.ndim == 3 and max(each.shape) >= 800 for each in drawn)
    assert (first.points is None) == np.array_equal(*drawn)


def test_a_place_of_the_encoder_looks_at_its_map(small_network):
    network = small_network("detr-r50")
    with recording(network) as recorded, torch.inference_mode():
        output = network(torch.randn(1, 3, 96, 160))
    [found] = select(output, [WIDE.shape[:2]], scoring=network.scoring, max_det=1)
    [one] = explanations(recorded, network, WIDE, found, COCO.as_dict())
    assert (one.encoder.level.height, one.encoder.level.width) == (3, 5)
    assert [one.encoder.at(*xy) for xy in ((0, 0), (99, 0), (45, 20), (99.9, 39.9), (500, -3))] == [0, 4, 7, 14, 4]
    assert one.encoder.map(45, 20).shape == WIDE.shape[:2]
    np.testing.assert_allclose(one.encoder.map(45, 20).sum(), 1, rtol=1e-5)


def test_a_position_is_spread_around_its_middle():
    level = Level(2, 5, (2, 5), start=3)
    weights = np.zeros(13, np.float32)
    weights[3 + 5 + 2] = 0.5  # row 1, column 2
    map = spread_out(weights, [level], (40, 100))
    assert map.sum() == pytest.approx(0.5)
    assert (map * (np.arange(100) + 0.5)).sum() / map.sum() == pytest.approx(50)
    assert np.flatnonzero(map.any(0)).tolist() == list(range(30, 70)), "as far as the neighbours' middles"
    assert map.argmax() // 100 >= 29


def test_padding_is_no_part_of_the_picture():
    """The picture fills 2 x 2 of 2 x 4 cells: the second cell of a row is its right half."""
    level = Level(2, 4, (2, 2), start=0)
    weights = np.zeros(8, np.float32)
    weights[[1, 5]] = 0.25
    map = spread_out(weights, [level], (10, 10))
    assert map.sum() == pytest.approx(0.5) and map[:, 8:].sum() > 10 * map[:, :2].sum()
    assert level.image_share == (0.5, 1) and level.middle(1, 1) == (0.75, 0.75)


def test_the_largest_part_has_the_area_asked_for():
    map = np.array([[0, 3, 1], [2, 0, 0]], np.float32)
    assert largest(map, 2).tolist() == [[False, True, False], [True, False, False]]
    assert largest(map, 4).sum() == 4
