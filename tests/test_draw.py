import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr import draw as drawing
from detr.draw import Window, colour_of, crop, draw, file_safe, text_colour_on
from detr.errors import InputError
from detr.records import Detections

GREY = np.full((120, 200, 3), 128, np.uint8)


def found(*boxes, labels=None, scores=None, tracks=None):
    count = len(boxes)
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores or [0.9] * count),
        torch.tensor(labels or [0] * count),
        None if tracks is None else torch.tensor(tracks),
    )


def contrast(one, other):
    bright, dark = sorted((drawing._luminance(one), drawing._luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_a_box_is_drawn_on_its_edge_and_nowhere_else():
    picture = draw(GREY, found((50, 60, 150, 100), labels=[2]), ["a", "b", "c"], labels=False, line_width=1)
    edge = (picture == colour_of(2)).all(-1)
    expected = np.zeros((120, 200), bool)
    expected[60:101, [50, 150]] = expected[[60, 100], 50:151] = True
    np.testing.assert_array_equal(edge, expected)
    assert (picture[~expected] == 128).all()


def test_the_given_image_is_left_alone():
    image = GREY.copy()
    draw(image, found((10, 10, 50, 50)), ["a"])
    np.testing.assert_array_equal(image, GREY)


def test_nothing_found_changes_nothing():
    np.testing.assert_array_equal(draw(GREY, found(), ["a"]), GREY)


def test_a_label_stands_on_its_box_in_the_colour_of_its_class():
    picture = draw(GREY, found((50, 60, 150, 100)), {0: "cat"})
    above = picture[40:58, 50:90].reshape(-1, 3)
    assert (above == colour_of(0)).all(-1).mean() > 0.3
    assert (above == text_colour_on(colour_of(0))).all(-1).any()


@pytest.mark.parametrize(
    "box", [(-50, -50, 400, 400), (190, 0, 260, 5), (0, 118, 10, 119), (300, 300, 400, 400), (5, 5, 5, 5)]
)
def test_boxes_and_labels_stay_inside_the_picture(box):
    picture = draw(GREY, found(box), ["a rather long name of a class"])
    assert picture.shape == GREY.shape and (picture != GREY).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 3)])
def test_tiny_pictures_are_drawn_on(size):
    assert draw(np.zeros((*size, 3), np.uint8), found((0, 0, 1, 1)), ["name"]).shape == (*size, 3)


def test_lines_and_letters_grow_with_the_picture():
    def coloured(side):
        picture = draw(np.zeros((side, side, 3), np.uint8), found((side / 4, side / 4, side / 2, side / 2)), ["cat"])
        return (picture == colour_of(0)).all(-1).mean()

    assert coloured(2000) == pytest.approx(coloured(1000), rel=0.35)


def test_the_best_detection_lies_on_top():
    picture = draw(
        GREY, found((50, 60, 150, 100), (50, 60, 150, 100), labels=[0, 1], scores=[0.9, 0.5]), "ab", labels=False
    )
    assert tuple(picture[60, 100]) == colour_of(0)


def test_no_box_runs_through_a_label():
    alone = draw(GREY, found((50, 60, 150, 110)), ["a", "b"])
    crossed = draw(GREY, found((45, 20, 70, 115), (50, 60, 150, 110), labels=[1, 0]), ["a", "b"])
    height, width = drawing._written("a 0.90", 10).shape
    plate = slice(60 - height - 2, 59), slice(50, 50 + width)
    np.testing.assert_array_equal(crossed[plate], alone[plate])


@pytest.mark.parametrize("top", [2, 60])
def test_labels_make_room_for_each_other_and_the_best_has_the_choice(top):
    boxes, plates = [(50 + 4 * number, top + number, 150, 100) for number in range(5)], [GREY[:16, :40]] * 5
    places = drawing._places(plates, boxes, GREY.shape[:2])
    assert places[0] == (50, top if top < 16 else top - 16)
    covered = np.zeros(GREY.shape[:2], int)
    for x, y in places:
        covered[y : y + 16, x : x + 40] += 1
    assert covered.max() == 1 and covered.sum() == 5 * 16 * 40


def test_scores_and_tracks_change_the_label():
    plain = draw(GREY, found((50, 60, 150, 100)), ["cat"], scores=False)
    scored = draw(GREY, found((50, 60, 150, 100)), ["cat"])
    tracked = draw(GREY, found((50, 60, 150, 100), tracks=[7]), ["cat"])
    widths = [(picture[45] != GREY[45]).any(-1).sum() for picture in (plain, scored, tracked)]
    assert widths == sorted(set(widths))


def test_neighbouring_classes_have_different_colours():
    assert len({colour_of(label) for label in range(21)}) == 21
    assert colour_of(3) == colour_of(3 + 21)


@given(st.tuples(*[st.integers(0, 255)] * 3))
@settings(deadline=None, max_examples=200)
def test_text_can_be_read_on_every_colour(background):
    assert contrast(text_colour_on(background), background) >= 4.5


def test_letters_of_latin_scripts_are_drawn():
    assert drawing._legible("Straßenlöwe é", 3) == "Straßenlöwe é"


def test_letters_no_font_has_become_the_number_of_the_class():
    assert drawing._legible("\U0010fffd", 17) == "class 17"
    draw(GREY, found((50, 60, 150, 100)), ["漢字\n\t"])


def test_a_crop_is_what_the_box_shows():
    image = np.arange(120 * 200 * 3, dtype=np.uint64).reshape(120, 200, 3).astype(np.uint8)
    np.testing.assert_array_equal(crop(image, (10.4, 20, 29.5, 40)), image[20:40, 10:30])
    np.testing.assert_array_equal(crop(image, (-10, -10, 5, 5)), image[:5, :5])
    assert crop(image, (300, 300, 310, 310)) is None
    assert crop(image, (10, 10, 10, 20)) is None


@pytest.mark.parametrize(
    ("name", "safe"), [("cat", "cat"), ("a/b", "a_b"), ("..", "class"), ("", "class"), ("漢字", "漢字")]
)
def test_class_names_make_safe_folders(name, safe):
    assert file_safe(name) == safe


def test_a_window_without_a_screen_is_an_error(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(InputError, match="no screen"):
        Window("detr")
