"""The user's mistakes have a class, an exit code, and the nearest right thing."""

from hypothesis import given
from hypothesis import strategies as st

from detr.errors import InputError, UsageError, did_you_mean


def test_wrong_usage_is_told_from_bad_input_by_its_exit_code():
    assert (InputError("x").exit_code, UsageError("x").exit_code) == (1, 2)
    assert issubclass(UsageError, InputError) and issubclass(InputError, ValueError)


def test_the_nearest_word_is_asked_for_whatever_its_case():
    assert did_you_mean("epocs", ["epochs", "batch"]) == "; did you mean 'epochs'?"
    assert did_you_mean("RTDETR-R18", ["rtdetr-r18", "rtdetr-r50"]) == "; did you mean 'rtdetr-r18'?"
    assert did_you_mean("Epochs", ["EPOCHS"]) == "; did you mean 'EPOCHS'?"


def test_nothing_is_asked_where_nothing_is_near():
    assert did_you_mean("zebra", ["epochs", "batch"]) == did_you_mean("epochs", []) == ""


@given(st.text(), st.lists(st.text()))
def test_any_words_will_do(word, known):
    answer = did_you_mean(word, known)
    assert answer == "" or any(repr(name) in answer for name in known)
    assert answer != "" or word not in known
