"""What becomes of each detection and object, in cases counted by hand."""

from made_sets import found, truths

from detr.evaluation.outcomes import outcomes

CAT, DOG = 0, 1
BOX = (50, 50, 40, 40)


def met(truth, *rows, **options):
    seen = outcomes(truth, found(*rows), **options)
    return seen.truth.tolist(), seen.found_by.tolist(), seen.ignored.tolist()


def test_a_detection_takes_the_object_that_it_overlaps_most_and_of_equals_the_first():
    """Boxes of 40 x 40 that stand 4 or 8 pixels apart: IoU 36 / 44 and 32 / 48."""
    truth = truths((0, CAT, 58, 50, 40, 40), (0, CAT, 54, 50, 40, 40), (0, CAT, 46, 50, 40, 40))
    assert met(truth, (0, CAT, *BOX, 0.9)) == ([1], [-1, 0, -1], [False])
    assert met(truth, (0, CAT, *BOX, 0.9), (0, CAT, *BOX, 0.8)) == ([1, 2], [-1, 0, 1], [False, False])


def test_half_an_overlap_is_enough_and_less_is_not():
    truth = truths((0, CAT, 0, 0, 20, 10))
    assert met(truth, (0, CAT, 0, 0, 10, 10, 0.9)) == ([0], [0], [False])
    assert met(truth, (0, CAT, 0, 0, 9.9, 10, 0.9)) == ([-1], [-1], [False])
    assert met(truth, (0, DOG, 0, 0, 20, 10, 0.9)) == ([-1], [-1], [False])


def test_what_lies_in_a_crowd_of_its_class_is_ignored_unless_it_found_an_object():
    """Half in the crowd is not yet in it."""
    truth = truths((0, CAT, *BOX), (0, CAT, 0, 0, 100, 100), crowd=[1])
    rows = [(0, CAT, *BOX, 0.9), (0, CAT, 0, 0, 20, 20, 0.8), (0, DOG, 0, 0, 20, 20, 0.7), (0, CAT, 90, 0, 20, 20, 0.6)]
    assert met(truth, *rows) == ([0, -1, -1, -1], [0, -1], [False, True, False, False])


def test_only_the_best_of_an_image_are_looked_at():
    truth = truths((0, CAT, *BOX), (1, CAT, *BOX))
    rows = [(1, CAT, *BOX, 0.2), (0, CAT, *BOX, 0.3), (0, DOG, *BOX, 0.4)]
    assert met(truth, *rows, most=1) == ([-1, 1], [-1, 1], [False, False])
    assert met(truth, *rows, most=2) == ([-1, 0, 1], [1, 2], [False] * 3)
