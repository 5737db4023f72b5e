import pytest
import torch

from detr import convert
from detr.convert import Table, identify, other_model, to_ours, to_theirs
from detr.errors import InputError, UsageError


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    table = Table(
        rows=(
            ("net.first.{block}.*", "body.0.{block}.*"),
            ("net.{stage}.{block}.*", "body.{stage}.{block}.*"),
            (("attn.{layer}.q.*", "attn.{layer}.k.*", "attn.{layer}.v.*"), "layers.{layer}.qkv.*"),
            ("head.*", "score.*"),
            ("tied_head.*", "score.*"),
        ),
        marks=("net.{stage}.{block}.*", "head.*"),
        foreign=("other.*",),
        derived=("table", "net.{stage}.cache"),
    )
    monkeypatch.setitem(convert.TABLES, "toy", table)


def ones(*names):
    return {name: torch.ones(2) for name in names}


def test_numbers_and_tails_carry_over_and_the_first_fitting_row_counts():
    state = ones("net.first.3.conv.weight", "net.2.10.conv.bias", "head.weight")
    assert list(to_ours(state, "toy")) == ["body.0.3.conv.weight", "body.2.10.conv.bias", "score.weight"]
    assert list(to_theirs(to_ours(state, "toy"), "toy")) == list(state)


def test_a_number_is_not_a_word():
    assert list(to_ours(ones("net.x.1.weight"), "toy")) == ["net.x.1.weight"]


def test_parts_are_stacked_in_order_whatever_order_they_come_in():
    parts = {name: torch.full((1, 2), float(place)) for place, name in enumerate(("q", "k", "v"))}
    state = {f"attn.0.{name}.weight": parts[name] for name in ("v", "q", "k")}
    stacked = to_ours(state, "toy")
    torch.testing.assert_close(stacked, {"layers.0.qkv.weight": torch.tensor([[0.0, 0], [1, 1], [2, 2]])})
    back = to_theirs(stacked, "toy")
    assert list(back) == ["attn.0.q.weight", "attn.0.k.weight", "attn.0.v.weight"]
    torch.testing.assert_close(back["attn.0.k.weight"], parts["k"])


def test_a_stack_with_a_part_missing_keeps_their_names():
    assert list(to_ours(ones("attn.0.q.weight", "attn.0.v.weight"), "toy")) == ["attn.0.q.weight", "attn.0.v.weight"]


def test_what_is_derived_is_left_out_and_what_is_unknown_keeps_its_name():
    assert list(to_ours(ones("table", "net.1.cache", "surprise"), "toy")) == ["surprise"]
    assert list(to_theirs(ones("surprise"), "toy")) == ["surprise"]


def test_a_source_is_told_by_its_marks_and_by_what_is_foreign_to_it():
    assert identify(ones("net.0.0.weight", "head.bias")) == "toy"
    assert identify(ones("net.0.0.weight")) is None
    assert identify(ones("net.0.0.weight", "head.bias", "other.weight")) is None
    assert identify({}) is None


def test_an_unknown_table_is_refused():
    with pytest.raises(UsageError, match="did you mean 'rtdetr-official'"):
        to_ours({}, "rtdetr-offical")
    with pytest.raises(UsageError, match=r"no rename table 'zebra'; known are .*rtdetr-official, "):
        to_ours({}, "zebra")


def test_other_models_have_names():
    assert other_model(ones("refpoint_embed.weight", "query_feat.weight")) == "RF-DETR or LW-DETR"
    assert other_model(ones("transformer.level_embed", "query_embed.weight")) == "Deformable DETR"
    assert other_model(ones("nothing.known")) is None


def test_one_head_of_ours_is_theirs_for_each_layer(monkeypatch):
    table = Table(
        rows=(("layers.{layer}.*", "layers.{layer}.*"), ("head.0.*", "head.*")),
        marks=("head.0.*",),
        aliases=(("head.{layer}.*", "head.0.*"), ("again.{layer}.*", "head.0.*")),
    )
    monkeypatch.setitem(convert.TABLES, "heads", table)
    theirs = to_theirs(ones("layers.0.weight", "layers.1.weight", "head.weight"), "heads")
    heads = {f"{name}.{layer}.weight" for name in ("head", "again") for layer in (0, 1)}
    assert set(theirs) == heads | {"layers.0.weight", "layers.1.weight"}
    assert set(to_ours(theirs, "heads")) == {"layers.0.weight", "layers.1.weight", "head.weight"}
    with pytest.raises(InputError, match="two different tensors for head"):
        to_ours(theirs | {"again.1.weight": torch.zeros(2)}, "heads")


def test_what_is_numbered_behind_the_layers_has_the_number_that_they_leave(monkeypatch):
    table = Table(
        rows=(
            ("layers.{layer}.*", "steps.{layer}.*"),
            ("head.{count}.*", "last.*"),
            ("head.{layer}.*", "heads.{layer}.*"),
        ),
        marks=("head.0.*",),
        counted=("layers.{layer}.weight", "steps.{layer}.weight"),
    )
    monkeypatch.setitem(convert.TABLES, "heads", table)
    for count in (1, 2):
        each = range(count)
        ours = ones("last.weight", *(f"steps.{n}.weight" for n in each), *(f"heads.{n}.weight" for n in each))
        theirs = to_theirs(ours, "heads")
        assert {f"head.{n}.weight" for n in range(count + 1)} < theirs.keys()
        assert to_ours(theirs, "heads").keys() == ours.keys()
