"""The user's mistakes have a class, an exit code, and the nearest right thing."""

from hypothesis import given
from hypothesis import strategies as st

from detr.errors import InputError, UsageError, counted, did_you_mean, listed, shortened, visible


def test_wrong_usage_is_told_from_bad_input_by_its_exit_code():
    assert (InputError("x").exit_code, UsageError("x").exit_code) == (1, 2)
    assert issubclass(UsageError, InputError) and issubclass(InputError, ValueError)


def test_one_is_told_from_several():
    said = [counted(number, "image") for number in (0, 1, 2, 12_345)]
    assert said == ["0 images", "1 image", "2 images", "12,345 images"]
    assert [counted(n, "box lies", "boxes lie") for n in (1, 2)] == ["1 box lies", "2 boxes lie"]


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


def test_of_many_values_the_first_are_listed():
    assert listed([]) == ""
    assert listed([1, "b"]) == "1, b"
    assert listed(range(5)) == "0, 1, 2, 3, 4"
    assert listed(range(6)) == "0, 1, 2, 3, 4, ..."
    assert listed("abc", 2) == "a, b, ..."


@given(st.text())
def test_no_text_steers_a_terminal(text):
    shown = visible(text + "\x1b[31m\x9b\r\udcff")
    assert shown.endswith(r"\x1b[31m\x9b\x0d\udcff") and shown.encode()
    assert all(character in "\t\n" or character >= " " for character in shown)
    assert visible("é\tüß\n") == "é\tüß\n"


@given(st.text())
def test_a_shortened_text_has_60_characters_at_most_and_begins_alike(text):
    short = shortened(text)
    assert len(short) <= 60
    assert short == text or (len(text) > 60 and short == f"{text[:57]}...")
