"""Who computes deformable attention, and what is said when nobody can."""

from types import SimpleNamespace

import pytest
import torch

import detr.ops.choice
from detr.errors import UsageError
from detr.ops import deformable_attention, kernels

GIVEN = (
    torch.rand(1, 6, 1, 2),
    ((2, 3),),
    torch.rand(1, 1, 2),
    torch.rand(1, 1, 1, 1, 2),
    torch.rand(1, 1, 1, 1),
    (1,),
)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"value": torch.rand(1, 7, 1, 2)}, "7 positions"),
        ({"shapes": ((2, 3), (1, 1))}, "points .* for 1 levels, shapes for 2"),
        ({"points": (2,)}, r"offsets .* here \[1, 1, 1, 2, 2\]"),
        ({"logits": torch.rand(1, 1, 2, 1)}, "logits"),
        ({"references": torch.rand(1, 1, 3)}, "references"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_shapes_that_do_not_go_together_are_refused(wrong, message):
    names = ("value", "shapes", "references", "offsets", "logits", "points")
    given = dict(zip(names, GIVEN, strict=True)) | wrong
    with pytest.raises(UsageError, match=message):
        deformable_attention(**given)


@pytest.fixture
def called(monkeypatch):
    """The forms in plain PyTorch that computed, in turn."""
    names = []
    for name in ("torch", "grid_sample"):
        form = getattr(detr.ops.choice, f"by_{name}")

        def noted(*given, name=name, form=form, **options):
            names.append(name)
            return form(*given, **options)

        monkeypatch.setattr(detr.ops.choice, f"by_{name}", noted)
    return names


def test_on_a_cpu_plain_pytorch_computes(called):
    deformable_attention(*GIVEN)
    assert called == ["torch"]


def test_inside_kernels_the_named_form_computes_and_afterwards_the_one_before(called):
    with kernels("grid_sample"):
        deformable_attention(*GIVEN)
        with kernels("torch"):
            deformable_attention(*GIVEN)
        deformable_attention(*GIVEN)
    deformable_attention(*GIVEN)
    assert called == ["grid_sample", "torch", "grid_sample", "torch"]


def test_the_environment_names_a_form_and_kernels_goes_before_it(called, monkeypatch):
    monkeypatch.setenv("DETR_KERNELS", "grid_sample")
    deformable_attention(*GIVEN)
    with kernels("auto"):
        deformable_attention(*GIVEN)
    assert called == ["grid_sample", "torch"]


def test_an_unknown_form_is_refused_where_it_is_named(monkeypatch):
    with pytest.raises(UsageError, match=r"kernels\(\): there are no kernels 'tritn'.*did you mean 'triton'"):
        kernels("tritn").__enter__()
    monkeypatch.setenv("DETR_KERNELS", "fast")
    with pytest.raises(
        UsageError, match=r"\$DETR_KERNELS: there are no kernels 'fast', choose from auto, torch, triton"
    ):
        deformable_attention(*GIVEN)


def test_triton_asked_for_on_a_cpu_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(detr.ops.choice, "_triton_is_installed", lambda: True)
    with kernels("triton"), pytest.raises(UsageError, match="on a CUDA device, and the value is on cpu"):
        deformable_attention(*GIVEN)
    monkeypatch.setattr(detr.ops.choice, "_triton_is_installed", lambda: False)
    with kernels("triton"), pytest.raises(UsageError, match="pip install triton"):
        deformable_attention(*GIVEN)


class Attend(torch.nn.Module):
    def forward(self, value, references, offsets, logits):
        return deformable_attention(value, ((2, 3),), references, offsets, logits, (1,))


def test_a_graph_that_is_exported_holds_operators_that_exporters_know():
    value, _, *others, _ = GIVEN
    program = torch.export.export(Attend(), (value, *others))
    names = {str(node.target) for node in program.graph.nodes}
    assert "aten.grid_sampler.default" in names or "aten.grid_sampler_2d.default" in names
    assert not any("detr" in name for name in names)
    torch.testing.assert_close(program.module()(value, *others), deformable_attention(*GIVEN))


def test_references_of_one_image_are_those_of_all():
    value, shapes, references, offsets, logits, points = GIVEN
    twice = [torch.cat([tensor, tensor]) for tensor in (value, offsets, logits)]
    found = deformable_attention(twice[0], shapes, references, *twice[1:], points)
    torch.testing.assert_close(found, deformable_attention(*GIVEN).expand(2, -1, -1))


def test_where_the_kernels_of_a_gpu_cannot_be_built_plain_pytorch_is_used_and_said_once(monkeypatch):
    value = SimpleNamespace(is_cuda=True, dtype=torch.float32, shape=(1, 4, 2, 32))
    monkeypatch.setattr(detr.ops.choice, "_triton_is_installed", lambda: True)
    monkeypatch.setattr(detr.ops.choice, "_compiler_is_there", lambda: True)
    assert detr.ops.choice._form(value) == "triton"
    monkeypatch.setattr(detr.ops.choice, "_compiler_is_there", lambda: False)
    detr.ops.choice._note.cache_clear()
    with pytest.warns(UserWarning, match="plain PyTorch.*need a C compiler"):
        assert detr.ops.choice._form(value) == "torch"
    assert detr.ops.choice._form(value) == "torch"


def test_what_depends_on_the_machine_is_marked_as_the_compiler_marks_constants():
    marks = vars(torch.compiler.assume_constant_result(lambda: None))
    assert marks
    for name in ("_triton_is_installed", "_compiler_is_there", "_of_environment"):
        assert marks.items() <= vars(getattr(detr.ops.choice, name)).items()


def test_a_compiler_is_there_where_one_is_named_or_found(monkeypatch):
    monkeypatch.setattr(detr.ops.choice, "_path_to_compiler", lambda: None)
    for named in (True, False):
        monkeypatch.setenv("CC", "/here/cc") if named else monkeypatch.delenv("CC")
        assert detr.ops.choice._compiler_is_there() == named
    monkeypatch.setattr(detr.ops.choice, "_path_to_compiler", lambda: "/usr/bin/gcc")
    assert detr.ops.choice._compiler_is_there()
