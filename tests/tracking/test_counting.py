import pytest
import torch

from detr.errors import InputError, UsageError
from detr.records import Detections
from detr.tracking import Counted, Counter, Place

DOOR = Place("door", ((0, 50), (100, 50)))
YARD = Place("yard", ((20, 20), (80, 20), (80, 80), (20, 80)))


def at(*tracks, label=0):
    """Boxes of 10 x 20 pixels around points: (id, x, y)."""
    boxes = torch.tensor([[x - 5.0, y - 10.0, x + 5.0, y + 10.0] for _, x, y in tracks]).reshape(-1, 4)
    ids = torch.tensor([track for track, _, _ in tracks], dtype=torch.int64)
    return Detections(boxes, torch.ones(len(tracks)), torch.full((len(tracks),), label), ids)


def counted(place, *frames, **options):
    counter = Counter(place, **options)
    for frame in frames:
        found = frame if isinstance(frame, Detections) else at(*frame)
        answer = counter.update(found, set(found.track_ids.tolist()))
    return answer.to_json({0: "car", 1: "dog"})


def test_down_over_a_line_from_left_to_right_is_in_and_up_is_out():
    assert counted(DOOR, [(1, 30, 20)], [(1, 32, 45)], [(1, 33, 70)]) == {"in": {"car": 1}, "out": {}}
    assert counted(DOOR, [(1, 30, 70)], [(1, 32, 20)]) == {"in": {}, "out": {"car": 1}}


def test_the_other_direction_of_the_line_turns_in_and_out():
    turned = Place("door", DOOR.points[::-1])
    assert counted(turned, [(1, 30, 20)], [(1, 30, 70)]) == {"in": {}, "out": {"car": 1}}


def test_a_way_around_the_end_of_the_line_is_no_crossing():
    assert counted(DOOR, [(1, 120, 20)], [(1, 120, 80)]) == {"in": {}, "out": {}}
    assert counted(DOOR, [(1, 90, 20)], [(1, 130, 45)], [(1, 130, 55)], [(1, 90, 80)]) == {"in": {}, "out": {}}


@pytest.mark.parametrize("end", [0, 100])
def test_a_way_over_the_very_end_of_the_line_is_a_crossing(end):
    assert counted(DOOR, [(1, end, 20)], [(1, end, 80)]) == {"in": {"car": 1}, "out": {}}


def test_trembling_on_the_line_is_one_crossing():
    places = [30, 49.5, 50.5, 49.3, 50.7, 49.8, 70]
    assert counted(DOOR, *([(1, 30, y)] for y in places)) == {"in": {"car": 1}, "out": {}}


@pytest.mark.parametrize(("wide", "high", "apart"), [(40, 10, 1), (10, 40, 1), (4, 4, 0.4)])
def test_a_box_may_tremble_by_a_tenth_of_its_shorter_side(wide, high, apart):
    def boxes(y):
        box = torch.tensor([[60.0 - wide / 2, y - high / 2, 60.0 + wide / 2, y + high / 2]])
        return Detections(box, torch.ones(1), torch.tensor([0]), torch.tensor([1]))

    assert counted(DOOR, boxes(30.0), boxes(50 + 0.75 * apart))["in"] == {}
    assert counted(DOOR, boxes(50 - 1.25 * apart), boxes(50 + 1.25 * apart))["in"] == {"car": 1}


def test_over_a_line_that_stands_upright_the_middle_counts():
    upright = Place("gate", ((50, 100), (50, 0)))
    assert counted(upright, [(1, 30, 50)], [(1, 46, 50)]) == {"in": {}, "out": {}}
    assert counted(upright, [(1, 30, 50)], [(1, 54, 50)]) == {"in": {"car": 1}, "out": {}}


def test_classes_and_tracks_are_counted_each():
    before = Detections(
        *(getattr(at((1, 10, 20), (2, 40, 20), (3, 60, 80)), n) for n in ("boxes", "scores")),
        torch.tensor([0, 1, 1]),
        torch.tensor([1, 2, 3]),
    )
    after = Detections(
        *(getattr(at((1, 10, 80), (2, 40, 80), (3, 60, 20)), n) for n in ("boxes", "scores")),
        torch.tensor([0, 1, 1]),
        torch.tensor([1, 2, 3]),
    )
    assert counted(DOOR, before, after) == {"in": {"car": 1, "dog": 1}, "out": {"dog": 1}}


def test_counts_are_said_in_the_order_of_classes():
    names = {0: "car", 1: "dog"}
    assert Counted(DOOR, {1: 1, 0: 2}, {0: 0}, {}, {}).said(names) == "door: 3 in (2 car, 1 dog), 0 out"
    assert Counted(YARD, {0: 9}, {0: 9}, {1: 1}, {0: 3}).said(names) == "yard: 1 inside (1 dog), 3 seen (3 car)"


def test_a_track_may_cross_again():
    assert counted(DOOR, *([(1, 30, y)] for y in (20, 80, 20, 80)))["in"] == {"car": 2}


def test_what_is_not_seen_for_a_while_has_crossed_all_the_same():
    counter = Counter(DOOR)
    counter.update(at((1, 30, 20)), {1})
    counter.update(at(), {1})
    assert counter.update(at((1, 30, 90)), {1}).entered == {0: 1}


def test_tracks_that_have_ended_are_forgotten():
    counter = Counter(YARD)
    for track in range(1, 200):
        counter.update(at((track, 50, 50)), {track})
    assert len(counter._last) == len(counter._has_been_inside) == 1
    assert counter.update(at(), set()).seen == {0: 199}


def test_a_zone_says_who_came_who_left_who_is_there_and_who_was():
    frames = [[(1, 5, 50), (2, 50, 50)], [(1, 50, 50), (2, 50, 95)], [(1, 55, 50), (2, 50, 95), (3, 60, 60)]]
    assert counted(YARD, *frames) == {"in": {"car": 1}, "out": {"car": 1}, "inside": {"car": 2}, "seen": {"car": 3}}


def test_who_is_first_seen_on_the_border_of_a_zone_is_not_in_it_yet_and_trembling_there_is_no_way_in():
    assert counted(YARD, [(1, 20.5, 50)]) == {"in": {}, "out": {}, "inside": {}, "seen": {}}
    frames = ([(1, x, 50)] for x in (10, 20.5, 19.5, 20.5, 30))
    assert counted(YARD, *frames) == {"in": {"car": 1}, "out": {}, "inside": {"car": 1}, "seen": {"car": 1}}


@pytest.mark.parametrize(("point", "distance"), [((50, 30), 10), ((30, 50), 10), ((50, 84), -4), ((83, 84), -5)])
def test_how_far_the_border_of_a_zone_is(point, distance):
    """From (83, 84) the corner at (80, 80) is the nearest point: 3, 4, 5."""
    assert Counter(YARD)._zone_distance(point) == pytest.approx(distance)
    assert Counter(YARD)._zone_distance((100 - point[0], 100 - point[1])) == pytest.approx(distance)


def test_a_point_as_high_as_two_corners_is_inside_between_them():
    diamond = Place("diamond", ((50, 0), (100, 50), (50, 100), (0, 50)))
    assert Counter(diamond)._zone_distance((50, 50)) == pytest.approx(50 / 2**0.5)
    assert Counter(diamond)._zone_distance((110, 50)) == pytest.approx(-10)


def test_a_zone_may_be_hollow():
    hook = Place("hook", ((0, 0), (100, 0), (100, 100), (80, 100), (80, 20), (0, 20)))
    assert counted(hook, [(1, 50, 60)])["inside"] == {}
    assert counted(hook, [(1, 90, 60)])["inside"] == {"car": 1}


def test_what_stands_on_the_ground_can_be_counted_by_its_feet():
    assert counted(DOOR, [(1, 30, 38)], [(1, 30, 45)]) == {"in": {}, "out": {}}
    assert counted(DOOR, [(1, 30, 38)], [(1, 30, 45)], anchor="bottom") == {"in": {"car": 1}, "out": {}}


def test_places_are_read_with_and_without_a_name():
    assert Place.read("0,50,100,50:front door", is_line=True, number=1) == Place("front door", ((0, 50), (100, 50)))
    assert Place.read("0,0,9,0,9,9", is_line=False, number=2) == Place("zone 2", ((0, 0), (9, 0), (9, 9)))
    assert len(Place.read("0,0,9,0,9,9,0,9", is_line=False, number=2).points) == 4


def test_numbers_up_to_1_are_shares_of_the_picture():
    assert Place.read("0,0.5,1,0.5", is_line=True, number=1).within(200, 400).points == ((0, 100), (400, 100))
    assert DOOR.within(200, 400) is DOOR


def test_pixels_outside_of_the_picture_are_an_error():
    with pytest.raises(InputError, match="door lies outside of the picture, which is 64 x 48"):
        DOOR.within(48, 64)
    with pytest.raises(InputError, match="lies outside"):
        Place("low", ((0, 0), (40, 50))).within(48, 64)
    wide = Place("wide", ((0, 48), (64, 0)))
    assert wide.within(48, 64) is wide


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "a,b,c,d", "1,2,3,4,5,6", "-1,2,3,4", "1,nan,3,4", "5,5,5,5", "1,2,3,inf", "0,0,9,0,9,9,5"],
)
def test_what_is_no_line_is_refused(text):
    with pytest.raises(UsageError, match="expected x1,y1,x2,y2"):
        Place.read(text, is_line=True, number=1)
    with pytest.raises(UsageError, match="expected x1,y1,x2,y2,x3,y3"):
        Place.read(text.replace(",5,6", ""), is_line=False, number=1)
