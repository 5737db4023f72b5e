import threading
from contextlib import closing

import pytest
import torch

from detr.classes import Classes
from detr.image import InputConfig
from detr.models.postprocess import Scoring
from detr.records import Output
from detr.runtime.runner import TorchRunner
from detr.runtime.streams import in_streams, streams_of


class Elsewhere:
    """A runner of another program."""

    config = type("Config", (), {"input": InputConfig(), "num_queries": 1})
    classes = Classes((1,), ("one",))
    scoring = Scoring()
    device = torch.device("cpu")
    name = "elsewhere"

    def __call__(self, images, padding=None):
        return Output(())


@pytest.mark.parametrize(("count", "streams"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (8, 4), (16, 4)])
def test_each_stream_has_as_many_threads_as_the_others_and_none_is_left_over(threads, count, streams):
    threads(count)
    assert streams_of(TorchRunner(torch.nn.Identity())) == streams


def test_what_takes_all_threads_for_itself_is_asked_once_at_a_time(threads):
    threads(4)
    assert streams_of(TorchRunner(torch.nn.Identity(), compile=True)) == 1
    assert streams_of(TorchRunner(torch.nn.Identity(), device="meta")) == 1
    assert streams_of(Elsewhere()) == 1


def test_as_many_are_asked_at_once_as_there_are_streams_and_answer_in_order(threads):
    threads(2)
    meeting = threading.Barrier(2)
    later = threading.Event()

    def ask(number):
        meeting.wait(20)  # nobody passes alone
        if number % 2 == 0:
            assert later.wait(20), "the second of a pair ends first"
        later.set() if number % 2 else later.clear()
        return 10 * number

    assert list(in_streams(ask, range(8), streams=2)) == [0, 10, 20, 30, 40, 50, 60, 70]


def test_few_questions_are_taken_ahead_of_their_answers(threads):
    threads(3)
    taken = []

    def questions():
        for number in range(100):
            taken.append(number)
            yield number

    with closing(in_streams(str, questions(), streams=3)) as answers:
        assert next(answers) == "0"
        assert len(taken) == 3 + 1, "three asked, one waiting for a free stream"


@pytest.mark.parametrize("streams", [1, 2])
def test_each_has_its_share_of_the_threads_and_gives_it_back(threads, streams):
    threads(4)

    def seen(_):
        torch.ones(2**16).mul(2)  # the first parallel work of a thread settles how many it has
        return torch.get_num_threads()

    assert set(in_streams(seen, range(6), streams=streams)) == {4 // streams}
    new = []
    thread = threading.Thread(target=lambda: new.append(seen(None)))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), new) == (4, [4])


@pytest.mark.parametrize("streams", [1, 3])
def test_what_goes_wrong_is_raised_in_its_place(threads, streams):
    threads(3)

    def ask(number):
        if number == 4:
            raise ValueError("no four")
        return number

    answers = in_streams(ask, range(100), streams=streams)
    assert [next(answers) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no four"):
        next(answers)
    assert torch.get_num_threads() == 3


def test_given_up_it_asks_nothing_more_and_ends_its_threads(threads):
    threads(2)
    asked = []
    before = threading.active_count()
    answers = in_streams(asked.append, range(100), streams=2)
    next(answers)
    answers.close()
    assert len(asked) <= 3 and threading.active_count() == before
