import torch

from detr.data.sample import drawing_from, uniform, whole


def test_whole_numbers_reach_both_ends_and_go_no_further():
    with drawing_from(0):
        assert {whole(2, 4) for _ in range(100)} == {2, 3, 4}
        assert whole(5, 5) == 5


def test_numbers_between_two_lie_evenly_between_them():
    with drawing_from(0):
        drawn = torch.tensor([uniform(-1.0, 3.0) for _ in range(2000)])
    assert drawn.min() >= -1 and drawn.max() <= 3
    assert abs(drawn.mean() - 1) < 0.1 and abs(drawn.std() - 4 / 12**0.5) < 0.1


def test_a_key_draws_the_same_each_time_and_leaves_no_trace():
    def drawn(*key):
        with drawing_from(*key):
            return uniform(0.0, 1.0)

    before = torch.get_rng_state()
    assert drawn(3, 1, 4) == drawn(3, 1, 4)
    assert len({drawn(3, 1, 4), drawn(3, 4, 1), drawn(3, 1), drawn(4)}) == 4
    assert torch.equal(torch.get_rng_state(), before)
