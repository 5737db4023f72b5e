import csv

import pytest

pytest.importorskip("optuna")

from detr.errors import InputError, UsageError
from detr.tuning.search_space import read_space
from detr.tuning.tune import tune

SPACE = read_space(["a.x=0.0..1.0"])


class Played:
    """A training that isn't one: best where x is 0.3, and better from epoch to epoch."""

    started: list
    epochs_each = 4

    def __init__(self, number, words, folder, started):
        self.x = float(words[0].partition("=")[2])
        self.folder = folder / f"trial-{number:03d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "recipe.yaml").write_text(f"x: {self.x}\n")
        self.shown = self.stopped = 0
        started.append(self)

    def epochs(self):
        for epoch in range(1, self.epochs_each + 1):
            self.shown = epoch
            yield epoch, epoch / 10 * (1 - abs(self.x - 0.3))

    def stop(self):
        self.stopped += 1


class Failing(Played):
    problem = InputError("no memory left")

    def epochs(self):
        raise self.problem
        yield


def search(folder, started, *, trials=6, kind=Played, about=None, said=None):
    return tune(
        SPACE, lambda number, words: kind(number, words, folder, started), folder=folder,
        about=about or {"recipe": "r"}, trials=trials, epochs=4, say=(said if said is not None else []).append,
    )  # fmt: skip


def test_the_best_trials_recipe_is_kept_and_all_are_in_the_table(tmp_path):
    started = []
    found = search(tmp_path, started)
    best = min(started, key=lambda each: abs(each.x - 0.3))
    assert started[found.best] is best and found.best_words == (f"a.x={best.x:.6g}",)
    assert (tmp_path / "best.yaml").read_text() == f"x: {best.x}\n"
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [int(row["trial"]) for row in rows] == list(range(6)) and {row["state"] for row in rows} <= {
        "complete",
        "pruned",
    }
    assert found.table.splitlines()[1].split()[0] == str(found.best)
    assert all(each.stopped == 1 for each in started)


def test_a_search_goes_on_with_what_it_knows(tmp_path):
    first, second = [], []
    tmp_path = tmp_path / "50%20 ?a#b"
    search(tmp_path, first, trials=3)
    assert (tmp_path / "study.db").is_file()
    search(tmp_path, second, trials=5)
    assert (len(first), len(second)) == (3, 2)
    assert not {each.x for each in first} & {each.x for each in second}
    assert search(tmp_path, [], trials=5).best is not None  # nothing is left to do


def test_a_trial_that_was_interrupted_begins_anew_with_the_same_settings(tmp_path):
    class Interrupted(Played):
        def epochs(self):
            yield 1, 0.1
            raise KeyboardInterrupt

    first, second, said = [], [], []
    search(tmp_path, first, trials=2)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, first, trials=4, kind=Interrupted)
    assert first[-1].stopped == 1
    search(tmp_path, second, trials=4, said=said)
    assert second[0].x == first[-1].x and len(second) == 2
    assert any("was stopped before its end, and begins anew" in line for line in said)
    assert (tmp_path / "trials.csv").read_text().splitlines()[3].startswith("2,stopped,1,")


def test_what_is_worse_than_most_at_its_epoch_is_stopped(tmp_path):
    class Late(Played):
        def epochs(self):
            for epoch in range(1, 5):
                self.shown = epoch
                yield epoch, 0.01

    good, bad, said = [], [], []
    search(tmp_path, good, trials=5)
    search(tmp_path, bad, trials=6, kind=Late, said=said)
    assert bad[0].shown < 4 and any("below the median of the others" in line for line in said)
    assert (tmp_path / "trials.csv").read_text().splitlines()[-1].split(",")[1] == "pruned"


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.db").write_bytes(b"no data base" * 100)
    with pytest.raises(InputError, match=r"study.db can't be used: file is not a database"):
        search(tmp_path, [])


def test_a_failed_trial_is_said_and_the_search_goes_on(tmp_path):
    def sometimes(number, words, folder, started):
        return (Failing if number == 1 else Played)(number, words, folder, started)

    started, said = [], []
    found = search(tmp_path, started, trials=3, kind=sometimes, said=said)
    assert len(started) == 3 and found.best != 1
    assert "  failed: no memory left" in said


def test_three_failures_in_a_row_end_it(tmp_path):
    started = []
    with pytest.raises(InputError, match="3 trials in a row failed; the last said: no memory left"):
        search(tmp_path, started, kind=Failing)
    assert len(started) == 3


def test_a_training_that_was_asked_wrongly_ends_it_at_once(tmp_path):
    class Wrong(Failing):
        problem = UsageError("no such data")

    started = []
    with pytest.raises(UsageError, match="no such data"):
        search(tmp_path, started, kind=Wrong)
    assert len(started) == 1


def test_without_evaluations_there_is_nothing_to_go_by(tmp_path):
    class Silent(Played):
        epochs_each = 0

    with pytest.raises(InputError, match="needs a val split"):
        search(tmp_path, [], kind=Silent)


def test_another_search_under_the_same_name_is_refused(tmp_path):
    search(tmp_path, [], trials=1)
    with pytest.raises(UsageError, match="holds a search with another recipe; choose another --name"):
        search(tmp_path, [], about={"recipe": "s"})
