"""Recipes: typed, strict, one base at most; whatever is wrong is said in one line, with the nearest right thing."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from detr.config import Config, merged, read_recipe, read_yaml, recipe_names, validated
from detr.errors import UsageError


class Encoder(Config):
    channels: int = 256
    heads: int = 8


class First(Config):
    arch: Literal["first"] = "first"
    encoder: Encoder = Encoder()
    mean: tuple[float, float, float] | None = None


class Second(Config):
    arch: Literal["second"] = "second"
    num_queries: int = 300


class Train(Config):
    epochs: int = Field(72, ge=1)
    rate: float = 1e-4
    amp: Literal["off", "bf16"] = "off"
    nesterov: bool = False
    average: Encoder | None = None

    @model_validator(mode="after")
    def _fits(self):
        if self.rate > self.epochs:
            raise ValueError("rate is more than epochs")
        return self


class Whole(Config):
    model: Annotated[First | Second, Field(discriminator="arch")] = First()
    train: Train = Train()
    stages: tuple[Encoder, ...] = ()
    folder: Path | None = None


@pytest.fixture
def recipe(tmp_path):
    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def load(path, *overrides):
    return validated(Whole, read_recipe(path, overrides), "recipe.yaml")


def refused(path, *overrides):
    """The one line that says what is wrong."""
    with pytest.raises(UsageError) as caught:
        load(path, *overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    assert caught.value.exit_code == 2
    return message


def test_a_value_comes_from_the_word_then_the_recipe_then_its_base_then_the_class(recipe):
    recipe("train: {epochs: 3, rate: 0.5}\nmodel: {arch: first, encoder: {heads: 4, channels: 64}}", "base/all.yaml")
    path = recipe("base: base/all.yaml\ntrain: {epochs: 5, nesterov: true}\nmodel: {encoder: {heads: 2}}")
    whole = load(path, "train.epochs=7")
    assert whole.train == Train(epochs=7, rate=0.5, nesterov=True, amp="off")
    assert whole.model == First(encoder=Encoder(heads=2, channels=64))


def test_a_mapping_of_another_kind_replaces_and_one_of_the_same_kind_merges():
    below = {"backbone": {"depth": 18, "width": 24}, "encoder": {"depth": 0.5}}
    timm = {"kind": "timm", "name": "some"}
    assert merged(below, {"backbone": timm}) == {**below, "backbone": timm}
    assert merged(below, {"backbone": {"kind": "resnet", "depth": 50}})["backbone"] == {
        "kind": "resnet",
        "depth": 50,
        "width": 24,
    }
    assert merged({"backbone": timm}, {"backbone": {"name": "other"}})["backbone"] == {"kind": "timm", "name": "other"}
    assert merged({"backbone": timm}, {"backbone": {"kind": "resnet"}})["backbone"] == {"kind": "resnet"}


def test_a_base_has_no_base(recipe):
    recipe("base: c.yaml", "b.yaml")
    recipe("train: {}", "c.yaml")
    assert "one base at most" in refused(recipe("base: b.yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: 3", "base is 3, expected the path of a recipe"),
        ("base: [a]", "expected the path of a recipe"),
        ("base: none.yaml", "No such file"),
        ("base: .", "Is a directory"),
        ('base: "\\0"', "cannot read"),
    ],
)
def test_a_base_that_is_not_there_is_said(recipe, text, said):
    assert said in refused(recipe(text))


def test_base_null_is_no_base(recipe):
    assert load(recipe("base: null")) == Whole()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("0x1f", 31),
        ("010", 10),
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("2.", 2.0),
        ("true", True),
        ("off", "off"),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2026-11-20", "2026-11-20"),
        ("1_000", "1_000"),
        ("'12'", "12"),
        ("null", None),
        ("", None),
        ("~", None),
        ("[1, 2.5]", [1, 2.5]),
        ("{b: c}", {"b": "c"}),
        ("x=y", "x=y"),
        ("street a/b.yaml", "street a/b.yaml"),
        ("ü", "ü"),
    ],
)
def test_words_and_files_are_read_alike_as_yaml_1_2(recipe, text, value):
    """YAML 1.1 would make False of off and no, 90 of 1:30, 8 of 010, a date, and text of 1e-4."""
    for found in (read_recipe(recipe("a: {}"), [f"a.b={text}"])["a"]["b"], read_yaml(recipe(f"b: {text}"))["b"]):
        assert found == value and type(found) is type(value)


@settings(deadline=None)
@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_every_number_python_writes_is_read_back(tmp_path_factory, number):
    path = tmp_path_factory.getbasetemp() / "numbers.yaml"
    path.write_text(f"a: {number!r}")
    found = read_yaml(path)["a"]
    assert found == number and type(found) is type(number)


@pytest.mark.parametrize("word", ["epochs", "=3", ".=3", "a..b=3", "a.=3", "", "--epochs 3", "a." * 5000 + "a=1"])
def test_a_word_that_is_no_setting_is_refused(recipe, word):
    assert "expected key.sub=value, such as train.epochs=12" in refused(recipe("train: {}"), word)


@pytest.mark.parametrize(
    "value", ["[1", "{a", "'", "*x", "&a [*a]", "!!python/object/apply:os.system [ls]", "a: b: c", "@"]
)
def test_a_word_whose_value_is_no_yaml_is_refused(recipe, value):
    message = refused(recipe("train: {}"), f"train.epochs={value}")
    assert "train.epochs=" in message and "not readable as YAML" in message


def test_blanks_around_a_key_do_not_count(recipe):
    assert load(recipe("train: {}"), "train . epochs = 9").train.epochs == 9


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ("train: {epocs: 3}", "train.epocs is not a setting of Train; did you mean 'epochs'?"),
        ("epochs: 3", "epochs is not a setting of Whole; did you mean 'train.epochs'?"),
        (
            "model: {arch: first, encoder: {chanels: 3}}",
            "model.encoder.chanels is not a setting of Encoder; did you mean",
        ),
        (
            "model: {arch: second, num_querys: 3}",
            "model.num_querys is not a setting of Second; did you mean 'num_queries'?",
        ),
        ("model: {arch: second, encoder: {}}", "model.encoder is not a setting of Second"),
        ("model: {encoder: {}}", "model.arch is missing"),
        ("model: {arch: frist}", "model.arch is 'frist'; did you mean 'first'?"),
        ("model: {arch: 7}", "model.arch is '7', expected 'first' or 'second'"),
        ("model: first", "model: expected keys and values, got 'first'"),
        ("train: {average: {head: 3}}", "train.average.head is not a setting of Encoder; did you mean 'heads'?"),
        ("stages: [{}, {heads: 1}, {hats: 1}]", "stages.2.hats is not a setting of Encoder"),
        ("stages: {heads: 1}", "stages: input should be a valid array"),
        ("train: {amp: of}", "train.amp: input should be 'off' or 'bf16', got 'of'; did you mean 'off'?"),
        ("train: {amp: false}", "train.amp: input should be 'off' or 'bf16', got False"),
        ("train: {epochs: 0}", "train.epochs: input should be greater than or equal to 1, got 0"),
        ("train: {rate: 100}", "train: rate is more than epochs"),
        ("model: {arch: first, mean: [1, 2]}", "model.mean.2 is missing"),
        ("? 1\n: 2", "1 is not a setting of Whole"),
        ("train: 3", "train: expected keys and values, got 3"),
        ("train: null", "train: expected keys and values, got None"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_the_nearest_right_thing(recipe, tree, said):
    assert refused(recipe(tree)).startswith(f"recipe.yaml: {said}")


def test_a_key_missing_because_it_is_misspelt_is_said_as_that():
    class Needy(Config):
        model: First

    with pytest.raises(UsageError, match="mdoel is not a setting of Needy; did you mean 'model'"):
        validated(Needy, {"mdoel": {}}, "recipe.yaml")


@pytest.mark.parametrize("value", ["true", "'12'", "1.5", "12.0", "null", "[12]", "{}", ".nan", "12 epochs"])
def test_a_number_is_taken_at_its_word(recipe, value):
    assert refused(recipe(f"train: {{epochs: {value}}}")).startswith("recipe.yaml: train.epochs: ")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "'1'", "true"])
def test_a_rate_is_a_finite_number(recipe, value):
    assert refused(recipe(f"train: {{rate: {value}}}")).startswith("recipe.yaml: train.rate: input should be a")


def test_whole_numbers_may_stand_for_floats_lists_for_tuples_and_text_for_paths(recipe):
    whole = load(recipe("model: {arch: first, mean: [1, 2, 3]}\nfolder: a/b"))
    assert whole.model.mean == (1.0, 2.0, 3.0) and isinstance(whole.model.mean[0], float)
    assert whole.folder == Path("a/b")


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Train().epochs = 3


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "aliases (*) are not allowed (line 2"),
        ("a: !!python/object/apply:os.system [touch /tmp/x]", "tags (!) are not allowed"),
        ("a: !!binary aGk=", "tags (!) are not allowed"),
        ("!!int ''", "tags (!) are not allowed"),
        ("a: " + "[" * 5000, "nested deeper than 50 levels"),
        ("a: " + "{a: " * 5000 + "}" * 5000, "nested deeper than 50 levels"),
        ("train: {}\nmodel: {}\ntrain: {}", "key 'train' is given twice (line 3, column 1)"),
        ("train: {epochs: 1, epochs: 2}", "key 'epochs' is given twice (line 1"),
        ("names: {0: a, 1: b, 0: c}", "key '0' is given twice (line 1"),
        ("? [a]\n: 1", "found unhashable key"),
        ("a: b: c", "mapping values are not allowed here (line 1, column 5)"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("a: " + "9" * 5000, "too many digits"),
        (b"a: \xff\xfe", "not a text file in UTF-8"),
        (b"a: \x00", "special characters are not allowed"),
        (b"\x89PNG\r\n\x1a\n", "not a text file in UTF-8"),
        ("", "is empty"),
        ("# only a word", "is empty"),
        ("- a\n- b", "expected keys and values, found list"),
        ("hello", "expected keys and values, found str"),
        ("a: 1\n" * 2 + "#" * 10_000_000, "larger than a recipe can be"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_that_is_no_recipe_is_refused_at_once(recipe, content, said):
    assert said in refused(recipe(content))


def test_many_keys_are_read_in_reasonable_time(recipe):
    assert len(read_yaml(recipe("\n".join(f"key{n}: {n}" for n in range(5000))))) == 5000


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.yaml", "neither a file nor one of ours"),
        (".", "is a folder"),
        ("a\0b", "neither a file nor one of ours"),
        ("x" * 5000, "neither a file nor one of ours"),
        ("RTDETR-r18", "did you mean 'rtdetr-r18'?"),
        ("rtdetr-r19", "did you mean 'rtdetr-"),
    ],
)
def test_a_recipe_that_is_not_there_is_said_with_those_that_are(name, said):
    with pytest.raises(UsageError) as caught:
        read_recipe(name)
    assert said in str(caught.value)


def test_our_recipes_are_read_by_name():
    assert "rtdetr-r18" in recipe_names()
    assert all("model" in read_recipe(name) for name in recipe_names())


trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(mappings, mappings)
def test_merging_keeps_all_of_what_lies_above_and_changes_neither(below, above):
    before = repr((below, above))
    together = merged(below, above)
    assert merged(together, above) == together
    assert merged({}, above) == above and merged(below, {}) == below
    assert set(together) == set(below) | set(above)
    assert repr((below, above)) == before
