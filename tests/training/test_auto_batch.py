import pytest
import torch

from detr.training import auto_batch
from detr.training.auto_batch import (
    Chosen,
    by_reckoning,
    by_trying,
    choose_batch,
    fits,
    largest_batch_of,
)
from detr.training.recipe import load_recipe

GB = 10**9


class Memory:
    """Of a GPU that holds so many images."""

    def __init__(self, images):
        self.images, self.tried = images, []

    def __call__(self, count):
        self.tried.append(count)
        return count <= self.images


def test_batches_double_until_one_does_not_fit_and_the_best_is_found_between():
    memory = Memory(45)
    chosen = by_trying(memory, 1000, "a GPU")
    assert memory.tried == [1, 2, 4, 8, 16, 32, 64, 48, 40, 44]
    assert chosen.batch == 44
    assert chosen.text == "batch 44: 48 took more than 90% of what is free on a GPU"


@pytest.mark.parametrize("images", [1, 2, 3, 7, 20, 100, 333])
def test_what_is_chosen_fits_and_an_eighth_more_does_not(images):
    batch = by_trying(Memory(images), 1000, "a GPU").batch
    assert batch <= images < batch + max(1, batch // 8) + 1


def test_no_more_is_tried_than_is_wanted():
    memory = Memory(1000)
    chosen = by_trying(memory, 14, "a GPU")
    assert (chosen.batch, max(memory.tried)) == (14, 14)
    assert "more would make less than 20 steps an epoch" in chosen.text


def test_where_not_even_one_image_fits_the_training_is_to_say_so():
    assert by_trying(Memory(0), 8, "a GPU").batch == 1


def test_on_a_cpu_the_recipes_batch_is_enough():
    chosen = by_reckoning(lambda count: count * GB // 4, 16, 12 * GB)
    assert chosen.batch == 16
    assert (
        chosen.text == "batch 16: an image takes about 0.25 GB of the 12.0 GB free; on a CPU more at once are no faster"
    )


def test_on_a_cpu_short_of_memory_it_is_what_half_of_it_takes():
    """1 GB for the first image and for each that comes to it: half of 12 GB takes 6."""
    assert by_reckoning(lambda count: count * GB, 16, 12 * GB).batch == 6
    assert by_reckoning(lambda count: count * GB, 16, GB // 2).batch == 1


@pytest.mark.parametrize(("cost", "free"), [(lambda count: None, GB), (lambda count: GB, None)])
def test_where_nobody_tells_the_memory_the_recipes_batch_stays(cost, free):
    assert by_reckoning(cost, 16, free).batch == 16


@pytest.fixture
def run(recipe_with, small_sets):
    return auto_batch._run_for_trials(recipe_with(), small_sets["train_set"], torch.device("cpu"))


def test_a_step_out_of_memory_does_not_fit_and_leaves_no_gradients(run, small_sets, recipe_with, monkeypatch):
    batch = largest_batch_of(recipe_with(), small_sets["train_set"], 3)
    assert fits(run, batch)

    def full(run, pieces):
        weight = run.network.queries.score_head.weight
        weight.grad = torch.ones_like(weight)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(auto_batch, "take_step", full)
    before = run.scaler
    assert not fits(run, batch)
    assert all(parameter.grad is None for parameter in run.network.parameters())
    assert run.scaler is not before and run.scaler.is_enabled() == before.is_enabled()


def test_other_errors_of_a_trial_are_not_hidden(run, small_sets, recipe_with, monkeypatch):
    def broken(run, pieces):
        raise RuntimeError("something else")

    monkeypatch.setattr(auto_batch, "take_step", broken)
    with pytest.raises(RuntimeError, match="something else"):
        fits(run, largest_batch_of(recipe_with(), small_sets["train_set"], 1))


def test_trials_are_as_large_and_crowded_as_training_gets(recipe_with, small_sets):
    train_set = small_sets["train_set"]
    batch = largest_batch_of(recipe_with(scales=[64, 96]), train_set, 2)
    known = train_set.annotations
    assert batch.images.shape == (2, 3, 96, 96) and batch.padding is None
    assert len(batch.targets[0].labels) == max((known.image_indices == index).sum() for index in range(6))
    padded = largest_batch_of(load_recipe("detr-r50"), train_set, 1)
    assert padded.images.shape == (1, 3, 1333, 1333) and padded.padding.shape == (1, 1333, 1333)


def test_a_small_set_is_still_trained_in_steps(recipe_with, small_sets):
    chosen = choose_batch(recipe_with(), small_sets["train_set"], torch.device("cpu"))
    assert chosen.batch == 1  # 6 images


def test_pieces_are_tried_and_their_sum_is_the_batch(recipe_with, small_sets, monkeypatch):
    monkeypatch.setattr(auto_batch, "LEAST_STEPS", 1)
    chosen = choose_batch(recipe_with(accumulate=2), small_sets["train_set"], torch.device("cpu"))
    assert chosen.batch == 2 and "2 such pieces" in chosen.text


def test_trials_of_a_deterministic_training_are_deterministic_too(recipe_with, small_sets, monkeypatch):
    """cuBLAS is told how before its first use, or never; and such steps take more memory."""
    seen = []

    def reckoned(*_):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return Chosen(1, "")

    monkeypatch.setattr(auto_batch, "by_reckoning", reckoned)
    for wanted in (False, True):
        choose_batch(recipe_with(deterministic=wanted), small_sets["train_set"], torch.device("cpu"))
    assert seen == [False, True] and not torch.are_deterministic_algorithms_enabled()
