"""Each arch has its paper's losses under its code's names, and refuses those of another."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from detr.criterion import FAMILIES, CriterionConfig, MatcherConfig, criterion_for
from detr.criterion import criterion as criterion_file
from detr.errors import UsageError
from detr.layers.edges import bin_positions, boxes_from_edges, expected_moves
from detr.records import Denoising, Edges, Output, Predictions, Target

CLASSES, QUERIES = 5, 7
DEIM = CriterionConfig(classification="mal", gamma=1.5, fgl_weight=0.15, ddf_weight=1.5, union=True)


def network(arch, **config):
    result = nn.Module()
    decoder = SimpleNamespace(scale=4.0, up=0.5)
    result.config = SimpleNamespace(arch=arch, decoder=decoder, **({"version": 2} | config))
    result.slots = tuple(range(0, 2 * CLASSES, 2))
    result.scoring = SimpleNamespace(exclusive=arch == "detr")
    return result


def predictions(batch, num_queries=QUERIES, *, edges=False):
    logits = torch.randn(batch, num_queries, 2 * CLASSES).requires_grad_()
    boxes = (torch.rand(batch, num_queries, 4) * 0.4 + 0.3).requires_grad_()
    if not edges:
        return Predictions(logits, boxes)
    start = boxes.detach()
    moves = torch.randn(batch, num_queries, 4, 33).requires_grad_()
    return Predictions(logits, boxes_from_edges(expected_moves(moves, bin_positions()), start), Edges(moves, start))


def output_of(arch, counts):
    """What a network of this arch gives in training, three layers of it."""
    batch, edges = len(counts), FAMILIES[arch].edges
    noised = arch not in ("detr", "deformable_detr") and max(counts) > 0
    denoising = None
    if noised:
        most = max(counts)
        denoising = Denoising(
            tuple(predictions(batch, 4 * most, edges=edges) for _ in range(3)),
            tuple(torch.tensor([2 * most * g + i for g in range(2) for i in range(n)]).long() for n in counts),
            tuple(torch.arange(n).repeat(2) for n in counts),
            2,
            predictions(batch, 4 * most) if edges else None,
        )
    return Output(
        tuple(predictions(batch, edges=edges) for _ in range(3)),
        None if arch == "detr" else predictions(batch, 4 * QUERIES if arch == "deformable_detr" else QUERIES),
        denoising,
        predictions(batch) if edges else None,
    )


def target(count):
    return Target(torch.randint(CLASSES, (count,)), torch.rand(count, 4) * 0.4 + 0.3)


def names(arch, config=None, **settings):
    losses = criterion_for(network(arch, **settings), config)(output_of(arch, [2, 1]), [target(2), target(1)])
    return sorted(name.removeprefix("loss_") for name in losses)


def each(losses, suffixes):
    return {f"{loss}{suffix}" for loss in losses for suffix in suffixes}


AUXILIARY, NOISED = ("_aux_0", "_aux_1"), ("_dn_0", "_dn_1", "_dn_2")
BOXES = ("bbox", "giou")
FINE = (
    each(BOXES, ("", *AUXILIARY, "_pre", "_enc_0", *NOISED, "_dn_pre"))
    | each(("fgl",), ("", *AUXILIARY, *NOISED))
    | each(("ddf",), (*AUXILIARY, "_dn_0", "_dn_1"))
)
OF_FINE_CLASSES = ("", *AUXILIARY, "_pre", "_enc_0", *NOISED, "_dn_pre")


@pytest.mark.parametrize(
    ("arch", "config", "expected"),
    [
        ("detr", None, each(("ce", *BOXES), ("", "_0", "_1"))),
        ("deformable_detr", None, each(("ce", *BOXES), ("", "_0", "_1", "_enc"))),
        ("dino", None, each(("ce", *BOXES), ("", "_0", "_1", "_interm", "_dn", "_dn_0", "_dn_1"))),
        ("rtdetr", None, each(("vfl", *BOXES), ("", *AUXILIARY, "_enc_0", *NOISED))),
        ("rtdetr", CriterionConfig(classification="mal"), each(("mal", *BOXES), ("", *AUXILIARY, "_enc_0", *NOISED))),
        ("dfine", None, FINE | each(("vfl",), OF_FINE_CLASSES)),
        ("dfine", DEIM, FINE | each(("mal",), OF_FINE_CLASSES)),
        ("deimv2", None, FINE | each(("mal",), OF_FINE_CLASSES)),
    ],
)
def test_losses_have_the_names_of_the_papers_code(arch, config, expected):
    assert set(names(arch, config)) == expected


def test_the_first_version_of_rtdetr_counts_its_proposals_among_the_auxiliary_layers():
    assert "vfl_aux_2" in names("rtdetr", version=1) and "vfl_enc_0" not in names("rtdetr", version=1)


@pytest.mark.filterwarnings("ignore:image -1 has")
@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("counts", [[0, 0], [1], [2 * QUERIES, 0, 3]])
def test_losses_and_gradients_are_finite_and_reach_every_part_for_any_number_of_targets(arch, counts):
    output = output_of(arch, counts)
    losses = criterion_for(network(arch))(output, [target(count) for count in counts])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    for part in parts_of(output):
        assert part.grad is not None, "a part that no loss depends on makes DistributedDataParallel wait for ever"
        assert part.grad.isfinite().all()


def parts_of(output):
    heads = [*output.layers, output.proposals, output.start]
    if output.denoising is not None:
        heads += [*output.denoising.layers, output.denoising.start]
    for head in heads:
        if head is not None:
            yield head.logits
            yield head.boxes if head.edges is None else head.edges.logits


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("counts", [[3, 0, 2], [0, 0]])
def test_a_step_reads_from_the_device_once(monkeypatch, arch, counts):
    transfers = []
    read = criterion_file._to_host
    monkeypatch.setattr(criterion_file, "_to_host", lambda *tensors: transfers.append(1) or read(*tensors))
    criterion_for(network(arch))(output_of(arch, counts), [target(count) for count in counts])
    assert len(transfers) == 1


def test_broken_edges_are_named():
    output = output_of("dfine", [1])
    with torch.no_grad():
        output.layers[1].edges.logits[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="the edges of decoder layer 1 are not finite"):
        criterion_for(network("dfine"))(output, [target(1)])


def test_half_precision_gives_losses_in_float32():
    output = output_of("dfine", [2])
    half = Output(
        tuple(
            Predictions(p.logits.bfloat16(), p.boxes, Edges(p.edges.logits.bfloat16(), p.edges.start))
            for p in output.layers
        )
    )
    wanted = [target(2)]
    exact, rough = (criterion_for(network("dfine"))(each, wanted) for each in (Output(output.layers), half))
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05)


@pytest.mark.parametrize(
    ("arch", "config", "words"),
    [
        ("detr", CriterionConfig(), "classification is 'varifocal'.*has a logit for \"no object\": expected cross_ent"),
        ("dino", CriterionConfig(classification="cross_entropy"), "has not a logit .*expected varifocal, focal or mal"),
        (
            "detr",
            CriterionConfig(classification="cross_entropy"),
            r"matcher\.classification is 'focal'; expected 'soft",
        ),
        ("dino", CriterionConfig(matcher=MatcherConfig(classification="softmax")), "is 'softmax'; expected 'focal'"),
        ("rtdetr", DEIM, r"distributions \(dfine, deimv2\); expected 0 for arch 'rtdetr'"),
    ],
)
def test_losses_that_do_not_go_with_the_network_are_refused(arch, config, words):
    with pytest.raises(UsageError, match=words):
        criterion_for(network(arch), config)


def test_an_unknown_arch_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"'dfin'.*dfine"):
        criterion_for(network("dfin"))
