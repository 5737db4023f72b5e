import threading
import time

import pytest

from detr.runtime.ahead import ahead, is_wanted


def test_items_come_in_order():
    assert list(ahead(range(1000), depth=3)) == list(range(1000))


def test_the_thread_is_at_most_so_far_ahead():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    taken = ahead(items(), depth=3)
    next(taken)
    time.sleep(0.3)
    assert len(made) <= 1 + 3 + 1, "one taken, three waiting, one in the thread's hand"
    taken.close()


def test_the_thread_works_while_the_taker_does():
    made = threading.Event()

    def items():
        yield 0
        made.set()
        yield 1

    taken = ahead(items(), depth=2)
    assert next(taken) == 0
    assert made.wait(20), "the second is made before it is asked for"
    assert list(taken) == [1]


@pytest.mark.parametrize("problem", [ValueError("no"), KeyboardInterrupt(), StopIteration()])
def test_what_the_thread_raises_is_raised_in_its_place(problem):
    class Items:
        def __iter__(self):
            self.left = 2
            return self

        def __next__(self):
            self.left -= 1
            if self.left < 0 and isinstance(problem, StopIteration):
                raise ValueError("the end is not an error")
            if self.left < 0:
                raise problem
            return self.left

    taken = ahead(Items(), depth=5)
    assert [next(taken), next(taken)] == [1, 0]
    with pytest.raises(ValueError if isinstance(problem, StopIteration) else type(problem)):
        next(taken)


def test_giving_up_stops_the_thread_and_closes_its_generator():
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    before = threading.active_count()
    outer = ahead((item for item in ahead(endless(), depth=2)), depth=2)
    assert next(outer) == 1
    outer.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert closed == ["detr-ahead"] and threading.active_count() == before


def test_a_thread_that_waits_hears_that_nobody_takes_from_it_any_more():
    """Through another one that takes from it, as well: the reader of a pipe is behind the network's thread."""
    left = threading.Event()

    def pipe():
        yield 1
        while is_wanted():
            time.sleep(0.01)
        left.set()

    taken = ahead(ahead(pipe(), depth=1), depth=1)
    assert next(taken) == 1 and is_wanted()
    taken.close()
    assert left.is_set()
