import warnings

from detr.engine.silence import spoken_of
from detr.runtime.ahead import ahead
from detr.video import Source


def test_a_silent_source_is_spoken_of_at_each_doubling_and_anew_after_it_came():
    go_on = spoken_of(Source("pipe", "-"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for seconds in (0.2, 9.8, 10.0, 10.2, 19.8, 20.2, 39.8, 0.2, 10.1):
            assert go_on(seconds)
    texts = [str(each.message) for each in said]
    assert texts == [f"standard input: nothing has come for {n} s; waiting for more" for n in (10, 20, 10)]


def test_a_silent_source_is_left_when_nobody_waits():
    def waiting():
        go_on = spoken_of(Source("pipe", "-"))
        yield go_on(0.2)
        while go_on(0.2):
            pass

    taken = ahead(waiting(), depth=1)
    assert next(taken)
    taken.close()
