import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.errors import InputError, UsageError
from detr.evaluation import json_records
from detr.evaluation.predictions import DetectionArrays, read_predictions, write_predictions


def annotations_with(image_ids=(7, 3), class_ids=(1, 5)):
    nothing = np.empty(0, int)
    return Annotations(
        classes=Classes(tuple(class_ids), tuple(f"class {id}" for id in class_ids)),
        image_ids=tuple(image_ids),
        file_names=tuple(f"{id}.jpg" for id in image_ids),
        heights=np.zeros(len(image_ids), int),
        widths=np.zeros(len(image_ids), int),
        image_indices=nothing,
        labels=nothing,
        boxes=np.empty((0, 4)),
        areas=np.empty(0),
        crowd=np.empty(0, bool),
    )


def record(**changes):
    return {"image_id": 7, "category_id": 5, "bbox": [1, 2.5, 3, 4], "score": 0.5} | changes


@pytest.fixture
def read(tmp_path):
    """Reads a results file made of `content`: a text as it is, anything else as JSON."""

    def reading(content, annotations=None, **options):
        path = tmp_path / "results.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return read_predictions(path, annotations or annotations_with(), **options)

    return reading


def test_records_become_arrays_in_file_order(read):
    found = read([record(), record(image_id=3, category_id=1, score=1)])
    assert found.image_indices.tolist() == [0, 1]
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[1, 2.5, 3, 4]] * 2
    assert found.scores.tolist() == [0.5, 1]
    assert found.notes == ()


def test_the_name_of_the_file_counts_for_more_than_a_guessed_id(read):
    """`0007.jpg` may be image 3 of the data set, and 7 another one."""
    rows = [record(image_id=7, file_name="3.jpg"), record(image_id=3, file_name="elsewhere.jpg"), record(image_id=7)]
    assert read(rows).image_indices.tolist() == [1, 1, 0]
    assert read([record(image_id=7, file_name=["3.jpg"])]).image_indices.tolist() == [0]


def test_names_that_two_images_share_tell_nothing(read):
    twice = dataclasses.replace(annotations_with(), file_names=("a/1.jpg", "b/1.jpg"))
    assert read([record(image_id=3, file_name="1.jpg")], twice).image_indices.tolist() == [1]


@pytest.mark.parametrize("text", ["[]", " [ ] \n", '{"annotations": []}', "\ufeff[]"])
def test_a_file_without_records_is_no_detection(read, text):
    assert len(read(text)) == 0


def test_an_object_with_annotations_is_accepted(read):  # E38
    assert read({"info": {}, "annotations": [record()]}).scores.tolist() == [0.5]


def test_further_keys_of_a_record_do_not_matter(read):
    assert read([record(segmentation={"counts": [[]]}, area=3, id=9)]).scores.tolist() == [0.5]


@pytest.mark.parametrize(("kind", "size"), [("list", 1), ("list", 7), ("object", 3)])
def test_many_records_are_read_in_parts(read, monkeypatch, kind, size):
    monkeypatch.setattr(json_records, "_RECORDS_AT_ONCE", size)
    records = [record(score=n / 10) for n in range(10)]
    assert read(records if kind == "list" else {"annotations": records}).scores.tolist() == [n / 10 for n in range(10)]
    with pytest.raises(InputError, match=r"record 8 \(counted from 0\): score is missing"):
        read([*records[:8], {"image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]}, *records[8:]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"score": None}, "score is null, expected a number"),  # E14, E15
        ({"score": "0.5"}, 'score is "0.5", expected a number'),
        ({"score": True}, "score is true, expected a number"),
        ({"score": [0.5]}, "score is [0.5], expected a number"),
        ({"bbox": None}, "bbox is null, expected 4 numbers"),
        ({"bbox": [1, 2, 3]}, "bbox is [1, 2, 3], expected 4 numbers"),
        ({"bbox": [1, 2, 3, 4, 5]}, "expected 4 numbers"),
        ({"bbox": [1, 2, 3, "4"]}, 'bbox is [1, 2, 3, "4"], expected 4 numbers'),
        ({"bbox": [1, 2, [3], 4]}, "expected 4 numbers"),
        ({"bbox": {"x": 1, "y": 2, "w": 3, "h": 4}}, "expected 4 numbers"),
        ({"bbox": "1234"}, "expected 4 numbers"),
        ({"image_id": None}, "image_id is null"),
        ({"image_id": [7]}, "image_id is [7]"),
        ({"image_id": True}, "image_id is true"),
        ({"category_id": {}}, "category_id is {}"),
        ({"category_id": None}, "category_id is null"),
    ],
)
def test_a_record_that_is_wrong_is_named(read, wrong, message):
    with pytest.raises(InputError) as error:
        read([record(), record(**wrong), record()])
    assert "record 1 (counted from 0): " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_a_record_that_lacks_a_key_is_named(read, key):
    lacking = record()
    del lacking[key]
    with pytest.raises(InputError, match=f"record 2 .*: {key} is missing"):
        read([record(), record(), lacking])


@pytest.mark.parametrize("row", [[], 5, "text", None])
def test_a_record_that_is_no_object_is_named(read, row):
    with pytest.raises(InputError, match=r"record 0 .*: expected an object with image_id"):
        read([row])


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_read_for_the_evaluator_to_refuse(read, value):
    text = json.dumps([record(score=1)]).replace("2.5", value)
    assert not np.isfinite(read(text).boxes).all()


def test_a_number_beyond_float64_is_refused(read):
    with pytest.raises(InputError, match="a number in records 0 to 0 is too large"):
        read([record(bbox=[10**400, 0, 1, 1])])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"image_id": 7,\n "category', "2:2"),
        ('[{"image_id": 7}\n', "2:1"),
        ("[", "1:2"),
        ('[{"a": 1} {"b": 2}]', "1:11"),
        ('[{"a": 1},]', "1:11"),
        ('[{"a": 1}] x', "1:12"),
        ("", "1:1"),
        ("  \n", "2:1"),
        ("nothing", "1:1"),
        ('{"annotations": [', "1:18"),
        ("[,]", "1:2"),
    ],
)
def test_broken_json_is_refused_with_its_line_and_column(read, text, place):
    with pytest.raises(InputError, match=rf"results\.json:{place}: not valid JSON: "):
        read(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_nesting_without_end_is_refused(read, text):
    with pytest.raises(InputError, match=r"results\.json"):
        read(text)


@pytest.mark.parametrize("content", [{}, {"annotations": {}}, 5, "null", {"images": []}])
def test_json_of_another_shape_is_refused(read, content):
    with pytest.raises(InputError, match="expected a list of detections"):
        read(content)


def test_a_folder_in_place_of_a_file_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        read_predictions(tmp_path, annotations_with())


def test_unknown_images_are_refused_with_three_of_their_ids_and_their_number(read):  # E16
    records = [record(), *(record(image_id=id) for id in (11, 12, 11, 13, 14))]
    with pytest.raises(
        InputError, match=r"5 of 6 detections are for images .*\(ids 11, 12, 13, \.\.\.\).*--allow-extra"
    ):
        read(records)
    found = read(records, allow_extra_images=True)
    assert len(found) == 1
    assert found.notes == ("5 of 6 detections are for images not in the data set (ids 11, 12, 13, ...); left out",)
    with pytest.raises(InputError, match="1 of 1 detections are for images"):
        read([record(image_id=11)], allow_extra_images=True)


def test_unknown_categories_are_left_out_unless_all_are_unknown(read):  # E17
    found = read([record(), record(category_id=2)])
    assert len(found) == 1
    assert found.notes == ("1 of 2 detections are of categories not in the data set (ids 2); left out",)
    with pytest.raises(InputError, match="class indices in place of category ids"):
        read([record(category_id=0), record(category_id=2)])


def test_ids_may_be_text(read):  # E19
    annotations = annotations_with(("a", "b"), ("cat", "dog"))
    found = read([record(image_id="b", category_id="dog")], annotations)
    assert (found.image_indices.tolist(), found.labels.tolist()) == ([1], [1])


def test_text_in_place_of_a_number_is_named_so(read):  # E20
    with pytest.raises(InputError, match="image_id is text in the results, a number in the annotations"):
        read([record(image_id="7")])
    with pytest.raises(InputError, match="image_id is a number in the results, text in the annotations"):
        read([record()], annotations_with(("7", "3")))
    with pytest.raises(InputError, match="category_id is text in the results, a number in the annotations"):
        read([record(category_id="5")])


def test_a_whole_number_may_be_written_as_a_float(read):  # E21
    assert read([record(image_id=7.0, category_id=5.0)]).labels.tolist() == [1]
    with pytest.raises(InputError, match=r"ids 7\.5"):
        read([record(image_id=7.5)])


def test_ids_beyond_float64_are_told_apart(read):  # E22
    found = read([record(image_id=2**53 + 1)], annotations_with((2**53, 2**53 + 1, -4)))
    assert found.image_indices.tolist() == [1]


def test_equal_sets_make_equal_files_in_the_order_of_ids_and_scores(tmp_path):
    annotations = annotations_with((9, 4))
    boxes = np.arange(16.0).reshape(4, 4) / 3
    images, labels, scores = np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0]), np.array([0.1, 0.2, 0.9, 0.7])
    for name, order in {"one": [0, 1, 2, 3], "two": [3, 1, 0, 2]}.items():
        found = DetectionArrays((9, 4), images[order], labels[order], boxes[order], scores[order])
        write_predictions(tmp_path / name, found, annotations.classes)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    rows = json.loads((tmp_path / "one").read_text())
    assert [(row["image_id"], row["category_id"], row["score"]) for row in rows] == [
        (4, 1, 0.7), (4, 5, 0.2), (9, 5, 0.9), (9, 1, 0.1),
    ]  # fmt: skip
    assert rows[3]["bbox"] == boxes[0].tolist()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.floats(0, 1), st.floats(-1e6, 1e6)), max_size=12))
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path_factory, rows):
    annotations = annotations_with(("a", 5, 6), ("x", 0))
    images, labels, scores, sides = (np.array([row[k] for row in rows]) for k in range(4))
    boxes = sides.astype(float)[:, None] * np.array([1, 1 / 3, 0.1, 1e-9])
    found = DetectionArrays(annotations.image_ids, images.astype(int), labels.astype(int), boxes, scores.astype(float))
    path = tmp_path_factory.mktemp("written") / "predictions.json"
    write_predictions(path, found, annotations.classes)
    again, expected = read_predictions(path, annotations), found.canonical()
    for name in ("image_indices", "labels", "boxes", "scores"):
        assert np.array_equal(getattr(again, name), getattr(expected, name)), name


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "predictions.json"
    path.write_text("old")
    broken = DetectionArrays((1,), np.zeros(1, int), np.array([9]), np.zeros((1, 4)), np.ones(1))
    with pytest.raises(IndexError):
        write_predictions(path, broken, Classes.from_names(["one"]))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_of_a_class_counts_for_more_than_an_id_which_another_table_gave(read):
    names = annotations_with().classes.names
    rows = [record(category=names[0].upper()), record(category=names[1], category_id=1), record(category="zebra")]
    found = read(rows)
    assert found.labels.tolist() == [0, 1]
    assert found.notes == ("1 of 3 detections are of categories not in the data set (names 'zebra'); left out",)
    with pytest.raises(InputError, match=rf"\(names 'zebra'\); it has {names[0]}, {names[1]}"):
        read(rows[2:])
