"""Each cause that is DETR's own, shown by predictions made to have it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from made_sets import found, random_case, truths

from detr.diagnose.diagnosis import diagnose
from detr.diagnose.groups import Group, groups
from detr.diagnose.page import _groups
from detr.diagnose.places import WHY, Places
from detr.diagnose.report import as_json, class_rows, shown_counts, table
from detr.diagnose.tide import CAUSES

CAT, DOG = 0, 1
BOX, NEAR, FAR = (50, 50, 40, 40), (53, 50, 40, 40), (200, 100, 40, 40)


def corners(box):
    x, y, width, height = box
    return {"x1": x, "y1": y, "x2": x + width, "y2": y + height}


def diagnosis(truth, detections, *, queries=None, places="not seen"):
    return diagnose(truth, detections, num_queries=queries, places=places)


def test_two_shown_boxes_of_a_class_on_an_object_are_duplicate_queries():
    truth = truths((0, CAT, *BOX), (1, CAT, *BOX), (2, CAT, *BOX))
    detections = found(
        (0, CAT, *BOX, 0.9), (0, CAT, *NEAR, 0.85), (1, CAT, *BOX, 0.8), (2, CAT, *BOX, 0.8), (2, CAT, *NEAR, 0.1)
    )
    seen = diagnosis(truth, detections)
    (row,) = as_json(seen)["queries"]["duplicates"]
    assert (row["image_id"], row["file_name"], row["object"]) == (0, "0.png", 0)
    assert (row["name"], row["class"], row["confidence"]) == ("cat", CAT, 0.85)
    assert row["box"] == corners(NEAR) and row["first_box"]["box"] == corners(BOX)
    assert "1 shown box on objects already found" in table(seen)


def test_images_with_more_objects_than_queries_are_named():
    truth = truths(*((1, CAT, 40 * n, 0, 20, 20) for n in range(5)), (0, CAT, *BOX))
    told = as_json(diagnosis(truth, found(), queries=3))["queries"]
    assert told["images_over_the_limit"] == [{"image_id": 1, "file_name": "1.png", "objects": 5}] and told["limit"] == 3
    assert "2 objects can't be found" in table(diagnosis(truth, found(), queries=3))
    assert not as_json(diagnosis(truth, found(), queries=5))["queries"]["images_over_the_limit"]


def test_where_missed_objects_were_lost_is_counted_and_listed():
    truth = truths(*((0, CAT, 60 * n, 0, 40, 40) for n in range(4)))
    places = Places(np.array([0, 0.9, 0.9, 0.9]), np.array([0, 0.2, 0.9, 0.9]), np.array([0, 0, 0.1, 0.9]))
    told = as_json(diagnosis(truth, found((0, CAT, 180, 0, 40, 40, 0.9)), places=places))
    assert told["queries"]["why_missed"] == dict.fromkeys(WHY, 1)
    assert [row["why"] for row in told["errors"]["missed"]] == list(WHY)


def test_what_only_a_model_can_tell_is_said_to_be_left_out():
    told = as_json(diagnosis(truths((0, CAT, *BOX)), found(), places="predictions are boxes only"))
    assert told["queries"]["left_out"] == "where queries started: predictions are boxes only"


def test_every_shown_error_is_listed_with_image_and_box():
    truth = truths((0, CAT, *BOX), (1, CAT, *BOX), (2, CAT, *BOX), (2, DOG, *FAR))
    detections = found(
        (0, CAT, *BOX, 0.9), (1, CAT, *BOX, 0.9), (1, CAT, *FAR, 0.95), (2, CAT, *BOX, 0.9), (2, CAT, *FAR, 0.97)
    )
    seen = diagnosis(truth, detections)
    errors = as_json(seen)["errors"]
    assert errors["class"] == [
        {
            "image_id": 2,
            "file_name": "2.png",
            "name": "cat",
            "class": CAT,
            "confidence": 0.97,
            "box": corners(FAR),
            "is": "dog",
        }
    ]
    assert [row["box"] for row in errors["background"]] == [corners(FAR)]
    assert [(row["image_id"], row["name"]) for row in errors["missed"]] == [(2, "dog")]
    assert shown_counts(seen) == {**dict.fromkeys(CAUSES, 0), "class": 1, "background": 1, "missed": 1}
    assert seen.worst_images(5) == [(2, 1, 1), (1, 1, 0)]


def test_objects_are_grouped_by_size_crowding_and_number():
    truth = truths((0, CAT, 0, 0, 20, 20), (0, CAT, 5, 0, 20, 20), (1, CAT, 0, 0, 100, 100), images=2)
    rows = {(group.kind, group.name): (group.objects, group.found) for group in groups(truth, np.array([1, 0, 1]) > 0)}
    assert rows["size", "small"] == (2, 1) and rows["size", "large"] == (1, 1) and rows["size", "medium"] == (0, 0)
    assert rows["crowding", "IoU with another above 0.3"] == (2, 1)
    assert rows["crowding", "no other object touches it"] == (1, 1)
    assert rows["objects in the image", "1"] == (1, 1) and rows["objects in the image", "2 to 5"] == (2, 1)


def test_a_size_ends_where_the_next_begins_and_recall_is_the_share_that_is_found():
    truth = truths((0, CAT, 0, 0, 32, 32), (0, CAT, 100, 0, 96, 96))
    rows = {group.name: group for group in groups(truth, np.array([True, False])) if group.kind == "size"}
    assert [rows[name].objects for name in ("small", "medium", "large")] == [1, 1, 0]
    assert [rows[name].recall for name in ("small", "medium", "large")] == [1, 0, None]
    assert Group("size", "small", 4, 3).recall == 0.75


@pytest.mark.parametrize("seed", range(4))
def test_numbers_add_up(seed):
    annotations, detections = random_case(seed)
    seen = diagnosis(annotations, detections)
    told = json.loads(json.dumps(as_json(seen), allow_nan=False))
    shown = sum(len(rows) for name, rows in told["errors"].items() if name != "missed")
    assert shown + sum(row["right"] for row in told["classes"]) == seen.shown.sum()
    for row in class_rows(seen):
        assert row["right"] + sum(row[cause] for cause in CAUSES[:-1]) == row["shown"]
        assert row["right"] + row["missed"] == row["objects"]
    for kind in ("size", "crowding", "objects in the image"):
        members = [group for group in seen.groups if group.kind == kind]
        assert sum(group.objects for group in members) == (~annotations.crowd).sum()
        assert sum(group.found for group in members) == seen.found.sum()


def test_nothing_there_or_nothing_found_is_told_too():
    something = found((0, CAT, *BOX, 0.9))
    for truth, detections in ((truths(), found()), (truths((0, CAT, *BOX)), found()), (truths(), something)):
        seen = diagnosis(truth, detections)
        assert json.dumps(as_json(seen), allow_nan=False) and "cause" in table(seen)


def test_the_page_shows_the_groups_that_have_objects():
    seen = SimpleNamespace(groups=[Group("size", "small", 0, 0), Group("size", "large", 4, 3)])
    assert _groups(seen)[1:] == [["size: large", "4", "3", "75%"]]
