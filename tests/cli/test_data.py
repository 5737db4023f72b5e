import json

import pytest
from click.testing import CliRunner

from detr.cli.data import command


def run(*words):
    result = CliRunner().invoke(command, [str(word) for word in words])
    code = getattr(result.exception, "exit_code", result.exit_code)
    return code, result.output, str(result.exception or "")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "set"
    code, output, _ = run("shapes", out, "--images", 4, "--val-images", 2, "--size", 64, "--no-video", "--seed", 3)
    assert code == 0 and output == f"{out}: 4 training and 2 validation images\n"
    return out


def test_the_set_that_was_made_checks_as_sound(made):
    code, output, _ = run("check", made)
    assert code == 0
    assert "train:" in output and "val:" in output and "index  id  name" in output
    assert "4 images" in output and "2 images" in output and "problem" not in output


def test_json_is_json(made):
    code, output, _ = run("check", made, "--json", "--quick")
    tree = json.loads(output)["splits"]
    assert code == 0 and list(tree) == ["train", "val"] and tree["train"]["images"] == 4
    assert len(tree["val"]["classes"]) == 10


def test_a_single_file_is_checked_once(made):
    file = made / "annotations" / "instances_val.json"
    code, output, _ = run("check", file, "--images", made / "images" / "val")
    assert code == 0 and output.count("images in") == 1 and output.startswith("train and val: ")


def test_a_folder_that_holds_something_is_a_usage_error(made):
    code, _, error = run("shapes", made)
    assert code == 2 and "--overwrite" in error
    assert run("shapes", made, "--images", 1, "--val-images", 1, "--size", 64, "--no-video", "--overwrite")[0] == 0
    assert run("shapes", made, "--images", 4, "--val-images", 2, "--size", 64, "--no-video", "--overwrite")[0] == 0


def test_a_missing_data_set_is_a_usage_error(tmp_path):
    code, _, error = run("check", tmp_path / "nope")
    assert code == 2 and "no such file or folder" in error


@pytest.mark.parametrize("words", [("--images", "0"), ("--images", "many"), ("--size", "8"), ("--seed", "-1")])
def test_wrong_numbers_are_usage_errors(tmp_path, words):
    assert run("shapes", tmp_path / "set", *words)[0] == 2


def test_a_damaged_image_fails_the_check(made, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    picture = copy / "images" / "train" / "000001.jpg"
    picture.write_bytes(picture.read_bytes()[:500])
    code, output, error = run("check", copy)
    assert code == 1 and "1 image is damaged" in error
    assert "problem: " in output and "000001.jpg" in output


def test_a_set_converted_there_and_back_checks_as_the_same(made, tmp_path):
    code, output, _ = run("convert", made, "--to", "yolo", "--out", tmp_path / "yolo")
    assert code == 0 and f"{tmp_path / 'yolo'}: train 4 images with" in output and "10 classes" in output
    code, output, _ = run("convert", tmp_path / "yolo", "--to", "VOC", "--out", tmp_path / "voc", "--copy", "--json")
    written = json.loads(output.splitlines()[-1])
    assert code == 0 and written["splits"]["train"]["images"] == 4 and len(written["classes"]) == 10
    sets = (made, tmp_path / "yolo", tmp_path / "voc")
    trees = [json.loads(run("check", each, "--json")[1])["splits"] for each in sets]
    for split in ("train", "val"):
        boxes = [[(row["name"], row["boxes"]) for row in tree[split]["classes"]] for tree in trees]
        assert boxes[0] == boxes[1] == boxes[2] and trees[0][split]["images"] == trees[2][split]["images"]


def test_convert_refuses_what_it_cannot_do(made, tmp_path):
    assert run("convert", made, "--to", "coco", "--out", made)[0] == 2
    code, _, error = run("convert", made, "--to", "pascal", "--out", tmp_path / "out")
    assert code == 2 and "expected one of coco, yolo, voc" in error
    assert run("convert", tmp_path / "nope", "--to", "yolo", "--out", tmp_path / "out")[0] == 2
    assert not (tmp_path / "out").exists()
