"""The class-id contract: original id, index and name belong together, and nothing is guessed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.classes import COCO, Classes
from detr.errors import InputError

ids = st.one_of(st.integers(-(10**9), 10**12), st.text(max_size=8))
rows = st.lists(st.tuples(ids, st.text(max_size=12)), max_size=12, unique_by=(lambda row: row[0], lambda row: row[1]))
tables = rows.map(lambda rows: Classes(tuple(id for id, _ in rows), tuple(name for _, name in rows)))


@given(tables)
def test_ids_indices_and_names_go_round_sparse_or_zero_or_text(classes):
    for index in range(len(classes)):
        assert classes.index_of(classes.id_of(index)) == index
        assert classes.as_dict()[index] == classes.names[index]


@given(tables)
def test_json_goes_round(classes):
    again = Classes.from_json(classes.to_json())
    assert again == classes
    assert [type(id) for id in again.ids] == [type(id) for id in classes.ids]


@given(tables, ids)
def test_an_id_that_is_not_there_is_refused(classes, id):
    if id in classes.ids:
        assert classes.id_of(classes.index_of(id)) == id
    else:
        with pytest.raises(InputError, match="is none of the"):
            classes.index_of(id)


@given(tables)
def test_every_class_matches_itself_by_name(classes):
    assert classes.matches_by_name(classes) == {index: index for index in range(len(classes))}


@settings(deadline=None)
@given(tables, st.lists(ids, min_size=2, max_size=4))
def test_the_table_has_a_line_for_each_class_whatever_is_in_the_names(classes, extra):
    assert len(classes.table().splitlines()) == len(classes) + 1
    assert all(line.isprintable() for line in classes.table(range(len(classes))).split("\n"))


def test_id_0_and_gaps_are_ids_like_any_other():
    classes = Classes((0, 7, 90), ("a", "b", "c"))
    assert [classes.index_of(id) for id in (0, 7, 90)] == [0, 1, 2]
    for id in (1, 2, -1, 91):
        with pytest.raises(InputError):
            classes.index_of(id)


def test_text_and_number_are_different_ids():
    classes = Classes((1, "1"), ("number", "text"))
    assert (classes.index_of(1), classes.index_of("1")) == (0, 1)


@pytest.mark.parametrize("id", [True, 1.0, None, [1], {}])
def test_what_is_no_id_is_not_looked_up(id):
    with pytest.raises(InputError, match="neither a whole number nor text"):
        Classes((1,), ("a",)).index_of(id)
    with pytest.raises(InputError, match="neither a whole number nor text"):
        Classes((id,), ("a",))


def test_whole_numbers_of_numpy_are_ids():
    classes = Classes(tuple(np.array([3, 5])), ("a", "b"))
    assert classes.ids == (3, 5)
    assert all(type(id) is int for id in classes.ids)
    assert classes.index_of(np.int64(5)) == 1


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_class_before_the_first_or_after_the_last(index):
    assert [Classes.from_names("abc").id_of(known) for known in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=rf"class index {index} is not in 0..2"):
        Classes.from_names("abc").id_of(index)


@pytest.mark.parametrize(
    ("ids", "names", "message"),
    [
        ((1, 2, 1), ("a", "b", "c"), "category id 1 is given more than once"),
        (("x", "x"), ("a", "b"), "category id 'x' is given more than once"),
        ((1, 2), ("a", "a"), "class name 'a' is given more than once"),
        ((1, 2), ("a",), "2 category ids for 1 class names"),
        ((1,), (None,), "class name None is not text"),
        ((1,), (["a"],), r"class name \['a'\] is not text"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(ids, names, message):
    with pytest.raises(InputError, match=message):
        Classes(ids, names)


@pytest.mark.parametrize("rows", [[{"id": 1}], [{"name": "a"}], ["a"], [3], "ab", 3, None, {"id": 1, "name": "a"}])
def test_rows_of_another_kind_are_refused(rows):
    with pytest.raises(InputError, match=r"id and name"):
        Classes.from_json(rows)


def test_names_match_without_case_and_outer_blanks():
    ours = Classes.from_names(["Person", " dog ", "zebra"])
    theirs = Classes.from_names(["cat", "DOG", "person"])
    assert ours.matches_by_name(theirs) == {0: 2, 1: 1}


def test_where_names_differ_only_in_case_the_very_same_one_matches():
    theirs = Classes.from_names(["Jaguar", "jaguar"])
    assert Classes.from_names(["jaguar", "JAGUAR"]).matches_by_name(theirs) == {0: 1}


def test_lists_become_tuples_so_that_equal_tables_are_equal():
    assert Classes([1, 2], ["a", "b"]) == Classes((1, 2), ("a", "b"))
    assert hash(Classes([1, 2], ["a", "b"])) == hash(Classes((1, 2), ("a", "b")))


def test_coco_has_80_classes_whose_ids_end_with_90():
    assert len(COCO) == len(set(COCO.names)) == 80
    assert (COCO.ids[0], COCO.ids[-1]) == (1, 90)
    assert COCO.names[COCO.index_of(18)] == "dog"
    assert set(range(1, 91)) - set(COCO.ids) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def test_the_table_shows_the_contract():
    table = Classes((7, "x"), ("dog", "cat")).table([12, 3])
    assert table.splitlines() == ["index  id  name  boxes", "    0   7  dog      12", "    1   x  cat       3"]
    assert Classes((7,), ("a\nb",)).table().splitlines() == ["index  id  name", "    0   7  a?b"]
