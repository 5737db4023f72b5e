import pytest

from detr.errors import UsageError
from detr.tuning.search_space import Choice, Range, read_space


class Drawn:
    """Chooses the lower ends and the last values."""

    def suggest_float(self, name, low, high, *, log=False):
        return low

    def suggest_int(self, name, low, high, *, log=False):
        return low

    def suggest_categorical(self, name, choices):
        return choices[-1]


@pytest.mark.parametrize(
    ("word", "dimension", "drawn"),
    [
        ("a.lr=1e-5..1e-3:log", Range("a.lr", 1e-5, 1e-3, False, True), "a.lr=1e-05"),
        ("a.flip=0..0.5", Range("a.flip", 0, 0.5, False, False), "a.flip=0"),
        ("a.batch=4..16", Range("a.batch", 4, 16, True, False), "a.batch=4"),
        ("a.shift=-.5..+2.", Range("a.shift", -0.5, 2, False, False), "a.shift=-0.5"),
        ("a.flip=0,0.5", Choice("a.flip", ("0", "0.5")), "a.flip=0.5"),
        ("a.b=no,{c: 4, d: 8},[1, 2]", Choice("a.b", ("no", "{c: 4, d: 8}", "[1, 2]")), "a.b=[1, 2]"),
    ],
)  # fmt: skip
def test_a_space_is_told_in_the_recipes_words(word, dimension, drawn):
    assert read_space([word]) == [dimension]
    assert dimension.choose(Drawn()) == drawn


def test_the_ends_of_a_range_are_words_of_a_recipe():
    assert read_space(["a=4..16"])[0].ends() == ["a=4", "a=16"]
    assert read_space(["a=1e-4..0.5:log"])[0].ends() == ["a=0.0001", "a=0.5"]
    assert read_space(["a=x,y"])[0].ends() == ["a=x", "a=y"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to search in"),
        (["train.epochs"], "expected key.sub=LOW..HIGH"),
        (["=1..2"], "expected key.sub=LOW..HIGH"),
        (["a=3"], "expected key.sub=LOW..HIGH"),
        (["a=1,1"], "expected key.sub=LOW..HIGH"),
        (["a=1,"], "expected key.sub=LOW..HIGH"),
        (["a=one..two"], "expected key.sub=LOW..HIGH"),
        (["a=1..2:lin"], "expected key.sub=LOW..HIGH"),
        (["a=2..1"], "the lower end first"),
        (["a=0..1:log"], "begins above 0"),
        (["a=1..2", "a=3,4"], "--search a is given twice"),
    ],
)
def test_what_is_no_space_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        read_space(words)
