"""A byte of an exported file that is another than the one written, wherever it is."""

import importlib.util
import zipfile

import onnx
import pytest

from detr.errors import InputError
from detr.export import held_against, open_runner, runner_for, write
from detr.export.seal import require_whole, seal

MESSAGE = "isn't what `detr export` wrote: a byte of it.* is another; copy or export it again"

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")


def with_other_byte(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture
def onnx_file(exported, tmp_path):
    path = tmp_path / "network.onnx"
    path.write_bytes(exported("rtdetr")[1].read_bytes())
    return path


@pytest.fixture(scope="module")
def others(exported, tmp_path_factory):
    """The same network as OpenVINO and PyTorch take it."""
    folder = tmp_path_factory.mktemp("others")
    if importlib.util.find_spec("openvino") is not None:
        write("openvino", exported("rtdetr")[0], folder / "network.xml")
    write("torch-export", exported("rtdetr")[0], folder / "network.pt2")
    return folder


@pytest.fixture
def copied(others, tmp_path):
    for each in others.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    return tmp_path


def test_a_seal_is_of_every_byte_before_it(tmp_path):
    path = tmp_path / "short.onnx"
    path.write_bytes(b"ten bytes.")
    seal(path)
    require_whole(path)
    for place in range(10):
        with_other_byte(path, place)
        with pytest.raises(InputError, match=MESSAGE):
            require_whole(path)
        with_other_byte(path, place)
    require_whole(path)


def test_an_archive_that_is_cut_or_none_is_refused(tmp_path):
    path = tmp_path / "network.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"ten bytes.")
    require_whole(path)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole.replace(b"ten", b"six"), b"nothing of the kind", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=MESSAGE):
            require_whole(path)


def test_an_onnx_file_with_another_byte_is_refused(onnx_file):
    open_runner(onnx_file)
    with_other_byte(onnx_file, onnx_file.stat().st_size // 2)
    with pytest.raises(InputError, match=f"network.onnx {MESSAGE}"):
        open_runner(onnx_file)


@needs_openvino
@pytest.mark.parametrize("ending", [".xml", ".bin"])
def test_a_byte_of_openvinos_two_files_that_is_another_is_refused(copied, ending):
    path = copied / "network.xml"
    open_runner(path)
    changed = path.with_suffix(ending)
    with_other_byte(changed, changed.stat().st_size // 2)
    with pytest.raises(InputError, match=rf"network.xml {MESSAGE}"):
        open_runner(path)


def test_a_weight_of_an_archive_that_is_another_is_refused(copied):
    path = copied / "network.pt2"
    open_runner(path)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda each: each.file_size * ("data/weights/" in each.filename))
    with_other_byte(path, largest.header_offset + 1000 + largest.file_size // 2)
    with pytest.raises(InputError, match=f"network.pt2 {MESSAGE}"):
        open_runner(path)


def test_the_seal_of_an_onnx_file_is_an_entry_of_its_metadata(onnx_file):
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    assert [each.key for each in model.metadata_props] == ["detr", "detr.sha256"]
    assert held_against(onnx_file) == "every byte against its SHA-256"


def test_a_file_of_an_earlier_version_or_changed_on_purpose_opens_without_a_seal(onnx_file):
    model = onnx.load(onnx_file)
    del model.metadata_props[1]
    onnx.save(model, onnx_file)
    assert open_runner(onnx_file).name == "onnx float32"
    assert held_against(onnx_file) == "nothing to check against"


@needs_openvino
def test_twice_the_same_network_gives_openvino_the_same_bytes(exported, copied):
    write("openvino", exported("rtdetr")[0], copied / "again.xml")
    for ending in (".xml", ".bin"):
        assert (copied / f"again{ending}").read_bytes() == (copied / f"network{ending}").read_bytes()


def test_a_kept_file_that_is_damaged_is_made_again_to_the_same_bytes(exported):
    said = []
    path = runner_for("onnx", exported("detr")[0]).path
    before = path.read_bytes()
    with_other_byte(path, len(before) // 2)
    runner_for("onnx", exported("detr")[0], say=said.append)
    assert said == [f"making {path}, once for these weights"]
    assert path.read_bytes() == before
