"""A file of `torch.export` that would run code is refused before PyTorch sees it."""

import io
import json
import os
import zipfile

import pytest
import torch

from detr.errors import InputError
from detr.export.pt2_runner import Pt2Runner
from detr.export.pt2_safety import require_harmless


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("went-off",)


def pickled(content):
    stream = io.BytesIO()
    torch.save({"a": Bomb()}, stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(torch.nn.Linear(3, 2), (torch.rand(2, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def changed(path, out, ending, change):
    """A copy in which the entry of that ending is another."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(ending) else content)
        if ending.endswith(".so"):
            new.writestr(old.namelist()[0].partition("/")[0] + ending, b"")
    return out


def test_what_is_exported_is_harmless(harmless, tmp_path):
    require_harmless(harmless)
    sides = ["(1 + (((-1) + L['images'].size()[3]) // 2)) != 1", "L['a'].size()[0] == L['b'][0].size()[1]"]
    guarded = lambda text: json.dumps({**json.loads(text), "guards_code": sides}).encode()  # noqa: E731
    require_harmless(changed(harmless, tmp_path / "guarded.pt2", "model.json", guarded))


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("sample_inputs/model.pt", pickled, "more than tensors in data/sample_inputs/model.pt"),
        ("weights_config.json", lambda text: text.replace(b": false", b": true"), "pickled weights"),
        ("model.json", lambda text: text.replace(b"torch.ops.aten.linear.default", b"torch.os.system"), "'torch.os"),
        ("model.json", lambda text: text.replace(b"Symbol(", b"exec(chr(49), "), 'the expression "exec'),
        ("model.json", lambda text: json.dumps({**json.loads(text), "guards_code": ["exec(1)"]}).encode(), "'exec(1)'"),
        ("/data/aotinductor/model/x.so", None, "the entry 'data/aotinductor/model/x.so'"),
    ],
)
def test_what_would_run_code_is_refused(harmless, tmp_path, monkeypatch, ending, change, message):
    monkeypatch.chdir(tmp_path)
    path = changed(harmless, tmp_path / "hostile.pt2", ending, change)
    with pytest.raises(InputError, match=r"hostile.pt2: refused, it holds") as refused:
        Pt2Runner(path)
    assert message in str(refused.value)
    assert os.listdir(tmp_path) == ["hostile.pt2"]
