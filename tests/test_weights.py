import json
import os

import pytest
import torch
from safetensors.torch import save_file

from detr import weights
from detr.classes import Classes
from detr.errors import InputError, UsageError
from detr.export import SUFFIXES
from tests import programs

MODEL = {"arch": "rtdetr", "version": 1}
CLASSES = Classes.from_names(["cat", "dog"])


def some_state():
    return {
        "conv.weight": torch.randn(8, 3, 3, 3),
        "half": torch.randn(5, 2).bfloat16(),
        "count": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "transposed": torch.randn(4, 6).T,
    }


def write(path, state=None, **about):
    weights.write(path, state or some_state(), **{"model": MODEL, "classes": CLASSES} | about)
    return path


def test_what_is_written_is_read(tmp_path):
    state = some_state()
    write(tmp_path / "a.safetensors", state, metadata={"epoch": 3, "ap": 0.1 + 0.2})
    checkpoint = weights.read(tmp_path / "a.safetensors")
    assert checkpoint.model == MODEL
    assert checkpoint.classes == CLASSES
    assert checkpoint.metadata == {"epoch": 3, "ap": 0.1 + 0.2}
    assert checkpoint.format == "detr"
    assert checkpoint.state.keys() == state.keys()
    for name, tensor in state.items():
        assert checkpoint.state[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.state[name], tensor)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    state = some_state()
    first = write(tmp_path / "a.safetensors", state).read_bytes()
    again = write(tmp_path / "b.safetensors", dict(reversed(state.items()))).read_bytes()
    assert first == again


def test_metadata_may_hold_what_is_not_a_number(tmp_path):
    write(tmp_path / "a.safetensors", metadata={"ap": float("nan"), "loss": float("inf")})
    metadata = weights.read(tmp_path / "a.safetensors").metadata
    assert metadata["ap"] != metadata["ap"]
    assert metadata["loss"] == float("inf")


def test_tensors_that_share_memory_are_written(tmp_path):
    head = torch.randn(3)
    write(tmp_path / "a.safetensors", {"head.0": head, "head.1": head, "part": head[:2]})
    state = weights.read(tmp_path / "a.safetensors").state
    assert torch.equal(state["head.1"], head)
    assert torch.equal(state["part"], head[:2])


def test_any_flipped_bit_is_found(tmp_path):
    path = write(tmp_path / "a.safetensors", {"w": torch.randn(16), "b": torch.randn(3, 2)}, metadata={"epoch": 1})
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    padding = header - len(data[:header].rstrip())
    for place in range(len(data)):
        if header - padding <= place < header:
            continue  # blanks at the end of the header, which say nothing
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            weights.read(path)


def test_the_damaged_tensor_is_named(tmp_path):
    path = write(tmp_path / "a.safetensors", {"layer.weight": torch.randn(1000), "bias": torch.randn(4)})
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"checkpoint damaged \(layer\.weight\)"):
        weights.read(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 400, -1])
def test_a_truncated_file_is_refused(size, tmp_path):
    path = write(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError):
        weights.read(path)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "a.safetensors", {"w": torch.ones(4)})
    program = """
import resource, sys, torch
from detr import weights
from detr.classes import Classes
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    weights.write(sys.argv[1], {"w": torch.zeros(1_000_000)}, model={}, classes=Classes.from_names(["a"]))
except weights.InputError as problem:
    sys.exit(str(problem))
"""
    done = programs.run("-c", program, path)
    assert done.returncode == 1
    assert done.stderr == f"cannot write {path}: larger than allowed\n"
    assert torch.equal(weights.read(path).state["w"], torch.ones(4))
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "file" / "a.safetensors")


def test_a_newer_format_is_refused(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"detr": json.dumps({"format": 99})})
    with pytest.raises(InputError, match="format 99"):
        weights.read(tmp_path / "a.safetensors")


def test_a_header_whose_length_spells_pk_is_not_taken_for_a_zip(tmp_path):
    length = int.from_bytes(b"PK", "little")
    save_file({"weight": torch.arange(3)}, tmp_path / "plain.safetensors")
    plain = (tmp_path / "plain.safetensors").read_bytes()
    end = 8 + int.from_bytes(plain[:8], "little")
    (tmp_path / "odd.safetensors").write_bytes(length.to_bytes(8, "little") + plain[8:end].ljust(length) + plain[end:])
    assert torch.equal(weights.read(tmp_path / "odd.safetensors").state["weight"], torch.arange(3))


def test_anybodys_safetensors_are_read(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    checkpoint = weights.read(tmp_path / "a.safetensors")
    assert torch.equal(checkpoint.state["w"], torch.ones(2))
    assert checkpoint.model is None
    assert checkpoint.classes is None
    assert checkpoint.metadata == {"format": "pt"}


def hugging_face_folder(folder, labels, shards=False):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "rt_detr", "id2label": labels}))
    if not shards:
        save_file({"a": torch.ones(2), "b": torch.zeros(2)}, folder / "model.safetensors")
        return folder
    save_file({"a": torch.ones(2)}, folder / "model-1.safetensors")
    save_file({"b": torch.zeros(2)}, folder / "model-2.safetensors")
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.mark.parametrize("shards", [False, True])
def test_a_hugging_face_folder_is_read_with_its_classes(shards, tmp_path):
    folder = hugging_face_folder(tmp_path / "model", {"1": "dog", "0": "cat"}, shards)
    checkpoint = weights.read(folder)
    assert checkpoint.state.keys() == {"a", "b"}
    assert checkpoint.classes == CLASSES
    assert checkpoint.format == "huggingface"
    assert checkpoint.metadata["config"]["model_type"] == "rt_detr"


def test_a_hugging_face_file_is_read_with_the_config_beside_it(tmp_path):
    folder = hugging_face_folder(tmp_path / "model", {"0": "cat", "1": "dog"})
    assert weights.read(folder / "model.safetensors").classes == CLASSES


def test_a_missing_shard_and_one_outside_the_folder_are_refused(tmp_path):
    folder = hugging_face_folder(tmp_path / "model", {"0": "cat"}, shards=True)
    (folder / "model-2.safetensors").rename(tmp_path / "model-2.safetensors")
    with pytest.raises(InputError, match=r"model-2\.safetensors is missing"):
        weights.read(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "../model-2.safetensors"}}))
    with pytest.raises(InputError, match="outside"):
        weights.read(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"  <html lang='en'>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"hello, I am text", "begins with b'hello"),
        (b"\xff" * 200, "no file of weights"),
    ],
)
def test_what_is_no_file_of_weights_is_told_from_its_content(content, words, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match=words):
        weights.read(tmp_path / "weights.pth")


def test_a_missing_file_is_a_usage_error(tmp_path):
    for suffix in SUFFIXES.values():
        (tmp_path / f"best{suffix}").write_bytes(b"PK")
        with pytest.raises(UsageError, match=rf"best\{suffix} is an exported file.* give the weights"):
            weights.read(tmp_path / f"best{suffix}")
    with pytest.raises(UsageError, match="no such weights file"):
        weights.read(tmp_path / "none.pth")
    with pytest.raises(UsageError, match=r"folder without model\.safetensors"):
        weights.read(tmp_path)


def test_written_weights_have_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "any").touch()
    weights.write(tmp_path / "w.safetensors", {"a": torch.zeros(2)}, model={}, classes=Classes.from_names(["a"]))
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_of_a_folder_of_a_run_the_best_weights_are_offered(tmp_path):
    for name in ("last.safetensors", "best.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"give the weights file itself, such as {tmp_path / 'best.safetensors'}$"):
        weights.read(tmp_path)
