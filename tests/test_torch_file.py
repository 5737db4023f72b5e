import argparse
import io
import os
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import detr
from detr import weights
from detr.errors import InputError

STATE = {"conv.weight": torch.arange(24.0).reshape(2, 3, 4), "norm.num_batches_tracked": torch.tensor(7)}


def same(state, other=STATE):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in other)


class Runs:
    """Unpickled without care, it leaves a mark."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def bytes_of(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def legacy_tar(path, payload):
    with tarfile.open(path, "w") as archive:
        for name, content in (("storages", payload), ("tensors", payload), ("pickle", payload)):
            data = pickle.dumps(content)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


PAYLOADS = {
    "os.system": lambda mark: {"model": Runs(os.system, f"touch {mark}")},
    "eval": lambda mark: {"model": STATE, "epoch": Runs(eval, f"open({str(mark)!r}, 'w').close()")},
    "storage bytes": lambda mark: Runs(torch.storage._load_from_bytes, bytes_of(Runs(os.system, f"touch {mark}"))),
    "in the optimizer": lambda mark: {"model": STATE, "optimizer": {"state": [Runs(os.mkdir, str(mark))]}},
    "in args": lambda mark: {"model": STATE, "args": argparse.Namespace(lr=Runs(os.mkdir, str(mark)))},
}


@pytest.mark.parametrize("kind", [*PAYLOADS, "legacy pickle", "legacy tar"])
def test_a_malicious_file_is_refused_and_never_runs(kind, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "evil.pth"
    if kind == "legacy tar":
        legacy_tar(path, PAYLOADS["os.system"](mark))
    elif kind == "legacy pickle":
        torch.save(PAYLOADS["os.system"](mark), path, _use_new_zipfile_serialization=False)
    else:
        torch.save(PAYLOADS[kind](mark), path)
    with pytest.raises(InputError, match=re.escape(str(path))):
        weights.read(path)
    assert not mark.exists()


def test_the_payloads_would_run_if_they_were_unpickled(tmp_path):
    for number, payload in enumerate(PAYLOADS.values()):
        mark = tmp_path / f"mark{number}"
        pickle.loads(pickle.dumps(payload(mark)))
        assert mark.exists()


def test_no_code_of_ours_unpickles():
    package = Path(detr.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"weights_only\s*=\s*(False|None|0)\b", text), path
        assert not re.search(r"\b(pickle|dill|joblib|shelve|marshal)\.(load|loads|Unpickler|open)\b", text), path
        assert not re.search(r"allow_pickle\s*=\s*True", text), path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path


def test_the_refusal_names_what_the_file_asks_for(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        weights.read(tmp_path / "whole.pth")


@pytest.mark.parametrize(
    ("content", "nesting"),
    [
        (STATE, "the file itself"),
        ({"model": STATE, "epoch": 3}, "model"),
        ({"state_dict": STATE}, "state_dict"),
        ({"ema": {"module": STATE, "updates": 9}, "model": {"other": torch.zeros(1)}}, "ema.module"),
        ({"ema": None, "model": STATE}, "model"),
        ({"model": {f"module.{name}": tensor for name, tensor in STATE.items()}}, "model"),
    ],
)
def test_the_state_is_found_in_any_nesting_and_the_averaged_one_first(content, nesting, tmp_path):
    torch.save(content, tmp_path / "some.pth")
    checkpoint = weights.read(tmp_path / "some.pth")
    assert same(checkpoint.state)
    assert checkpoint.metadata["nesting"] == nesting
    assert checkpoint.format == "torch"


def test_harmless_objects_of_published_files_are_read(tmp_path):
    content = {
        "model": STATE,
        "args": argparse.Namespace(lr=1e-4),
        "epoch": 71,
        "best": np.float64(53.1),
        "n": np.int64(3),
    }
    torch.save(content, tmp_path / "some.pth")
    checkpoint = weights.read(tmp_path / "some.pth")
    assert same(checkpoint.state)
    assert checkpoint.metadata == {"nesting": "model", "epoch": 71, "best": 53.1}


def test_what_was_read_does_not_hang_on_the_file(tmp_path):
    path = tmp_path / "some.pth"
    torch.save(STATE, path)
    state = weights.read(path).state
    path.write_bytes(b"")  # a mapped tensor would crash the process when read now
    assert same(state)


def test_a_tensor_may_be_stored_under_two_names(tmp_path):
    head = torch.randn(2, 2)
    torch.save({"model": {"a": torch.randn(100), "head.0": head, "head.1": head}}, tmp_path / "tied.pth")
    state = weights.read(tmp_path / "tied.pth").state
    assert torch.equal(state["head.0"], state["head.1"])


def test_a_zip_bomb_is_refused(tmp_path):
    torch.save({"model": {"zeros": torch.zeros(1_000_000)}}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        weights.read(tmp_path / "bomb.pth")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    torch.save({"model": {"claim": torch.zeros(1).expand(10**12)}}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match="claim 4,000,000,000,000 bytes"):
        weights.read(tmp_path / "bomb.pth")


def test_a_tensor_without_data_is_refused(tmp_path):
    torch.save({"model": {"nothing": torch.empty(10**12, device="meta")}}, tmp_path / "meta.pth")
    with pytest.raises(InputError, match="nothing is not a plain tensor"):
        weights.read(tmp_path / "meta.pth")


def test_a_flipped_byte_of_the_data_is_found(tmp_path):
    path = tmp_path / "some.pth"
    torch.save({"model": {"a": torch.randn(10_000)}}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged \(the checksum"):
        weights.read(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share, tmp_path):
    path = tmp_path / "some.pth"
    torch.save({"model": {"a": torch.randn(10_000)}}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError):
        weights.read(path)


def test_a_damaged_pickle_is_refused_in_one_line(tmp_path):
    torch.save({"model": STATE}, tmp_path / "good.pth")
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "good.pth") as good:
        entries = {entry.filename: good.read(entry) for entry in good.infolist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    refused = 0
    for _ in range(60):
        content = bytearray(entries[pickled])
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        with zipfile.ZipFile(tmp_path / "bad.pth", "w") as bad:  # with right checksums, so that the pickle is reached
            for name, data in entries.items():
                bad.writestr(name, bytes(content) if name == pickled else data)
        try:
            weights.read(tmp_path / "bad.pth")
        except InputError as problem:
            refused += 1
            assert "\n" not in str(problem)
    assert refused > 20


@pytest.mark.parametrize(
    ("content", "words"),
    [({"epoch": 3, "lr": 0.1}, "mapping with epoch, lr"), ([1, 2], "found list"), ({}, "mapping with nothing")],
)
def test_a_file_without_a_state_says_what_it_holds(content, words, tmp_path):
    torch.save(content, tmp_path / "some.pth")
    with pytest.raises(InputError, match=words):
        weights.read(tmp_path / "some.pth")


def test_another_zip_archive_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("photo.jpg", b"...")
    with pytest.raises(InputError, match=r"photo\.jpg"):
        weights.read(tmp_path / "photos.pth")
