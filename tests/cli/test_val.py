"""`detr val` from the outside: what it prints, writes and refuses."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from detr import weights
from detr.classes import Classes
from detr.models import build_model, preset

ANNOTATIONS = [
    {"id": 1, "image_id": 5, "category_id": 3, "bbox": [10, 10, 40, 30], "area": 1200, "iscrowd": 0},
    {"id": 2, "image_id": 5, "category_id": 1, "bbox": [30, 40, 20, 20], "area": 400, "iscrowd": 0},
    {"id": 3, "image_id": 9, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0},
]
RESULTS = [
    {"image_id": 5, "category_id": 3, "bbox": [10, 10, 40, 30], "score": 0.9},
    {"image_id": 5, "category_id": 1, "bbox": [300, 40, 20, 20], "score": 0.8},
    {"image_id": 9, "category_id": 1, "bbox": [5, 5, 20, 20], "score": 0.7},
]


@pytest.fixture
def detr_val(detr_program):
    return partial(detr_program, "val")


@pytest.fixture
def truth(tmp_path):
    """A data set of three pictures in COCO's layout, one of them empty; the path of its annotation file."""
    folder = tmp_path / "data"
    (folder / "images" / "val").mkdir(parents=True)
    (folder / "annotations").mkdir()
    draw = np.random.default_rng(0)
    images = []
    for id in (5, 9, 2):
        pixels = draw.integers(0, 255, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / "val" / f"{id}.png")
        images.append({"id": id, "file_name": f"{id}.png", "width": 90, "height": 70})
    categories = [{"id": 1, "name": "square"}, {"id": 3, "name": "circle"}]
    path = folder / "annotations" / "instances_val.json"
    path.write_text(json.dumps({"images": images, "annotations": ANNOTATIONS, "categories": categories}))
    return path


@pytest.fixture
def results(tmp_path):
    def writing(rows):
        path = tmp_path / "results.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return path

    return writing


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """Fresh weights of the smallest preset for two classes, in the other order than the data has them."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    classes = Classes.from_names(["circle", "square"])
    config = preset("rtdetr-tiny")
    weights.write(path, build_model(config, classes=classes).state_dict(), model=config.model_dump(), classes=classes)
    return path


def test_predictions_give_the_twelve_lines_and_the_classes(detr_val, truth, results):
    code, out, err = detr_val("--predictions", results(RESULTS), "--data", truth)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["class", "AP", "AP50", "AR100", "boxes", "images", "detections"]
    assert lines[1].split() == ["circle", "1.000", "1.000", "1.000", "1", "1", "1"]
    assert lines[2].split() == ["square", "0.252", "0.252", "0.500", "2", "2", "2"]
    averages = [line for line in lines if line.startswith("Average")]
    assert len(averages) == 12
    assert averages[0] == "Average Precision (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.626"
    assert averages[5].endswith("n/a")  # there is no large box
    assert "3 images, 3 boxes, 0 crowds, 3 detections" in out
    assert "evaluator detr " in out and "medium 1024..9216" in out


def test_json_holds_every_digit_and_nothing_else_is_printed(detr_val, truth, results):
    code, out, _ = detr_val("--predictions", results(RESULTS), "--data", truth, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["metrics"]["AP"] == pytest.approx((1 + 0.5 * 51 / 101) / 2, abs=1e-12)
    assert report["metrics"]["APl"] is None
    assert [row["name"] for row in report["classes"]] == ["square", "circle"]
    assert report["settings"]["max_dets"] == [1, 10, 100]


def test_both_evaluators_print_the_same_numbers(detr_val, truth, results):
    path = results(RESULTS)
    reports = [
        json.loads(detr_val("--predictions", path, "--data", truth, "--json", "--evaluator", name)[1])
        for name in ("detr", "pycocotools")
    ]
    assert reports[0]["metrics"] == reports[1]["metrics"]
    assert [report["settings"]["evaluator"] for report in reports] == ["detr", "pycocotools"]


def test_predictions_leave_no_files_unless_asked_for(detr_val, truth, results, tmp_path):
    path = results(RESULTS)
    detr_val("--predictions", path, "--data", truth)
    assert not (tmp_path / "runs").exists()
    detr_val("--predictions", path, "--data", truth, "--name", "mine", "--save-json", tmp_path / "again.json")
    assert json.loads((tmp_path / "runs" / "val" / "mine" / "metrics.json").read_text())["metrics"]["AP"] > 0.6
    assert len(json.loads((tmp_path / "again.json").read_text())) == 3


def test_save_json_alone_is_as_in_predict(detr_val, truth, model_file, tmp_path):
    words = ["--weights", model_file, "--data", truth, "--workers", 0, "--imgsz", 32, "--device", "cpu"]
    assert detr_val("--save-json", *words)[0] == 0
    assert (tmp_path / "runs" / "val" / "val" / "predictions.json").is_file()


def test_data_may_be_a_folder_with_splits(detr_val, truth, results):
    folder = truth.parent.parent
    assert detr_val("--predictions", results(RESULTS), "--data", folder)[0] == 0
    code, _, err = detr_val("--predictions", results(RESULTS), "--data", folder, "--split", "test")
    assert code == 2 and "has no 'test' split; it has val" in err


def test_eval_is_another_name_of_val(detr_program, truth, results):
    code, out, _ = detr_program("eval", "--predictions", results(RESULTS), "--data", truth)
    assert code == 0 and out.count("Average") == 12


def test_no_detections_is_a_warning_not_an_error(detr_val, truth, results):  # E1
    code, out, err = detr_val("--predictions", results([]), "--data", truth)
    assert code == 0
    assert "= 0.000" in out
    assert err == "note: there are no detections: AP is 0 wherever there is something to find\n"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*RESULTS, RESULTS[0] | {"image_id": 77}], "1 of 4 detections are for images not in the data set (ids 77)"),
        ([RESULTS[0] | {"category_id": 80}], "1 of 1 detections are of categories not in the data set (ids 80)"),
        ([RESULTS[0] | {"image_id": "5"}], "image_id is text in the results, a number in the annotations"),
        ([RESULTS[0] | {"bbox": None}], "record 0 (counted from 0): bbox is null"),
        ([RESULTS[0] | {"bbox": [1, 2, 3, float("nan")]}], "1 detected boxes are not finite; the first"),
        ([RESULTS[0] | {"score": float("inf")}], "1 scores are not finite; the first is inf in image 5"),
        ('[{"image_id": 5, "categ', ":1:18: not valid JSON"),
        ("<html>", ":1:1: not valid JSON"),
    ],
)
def test_unusable_predictions_end_with_1_and_one_line(detr_val, truth, results, rows, said):
    code, out, err = detr_val("--predictions", results(rows), "--data", truth)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert said in err


def test_extra_images_may_be_allowed(detr_val, truth, results):
    rows = [*RESULTS, RESULTS[0] | {"image_id": 77}]
    code, out, err = detr_val("--predictions", results(rows), "--data", truth, "--allow-extra-images")
    assert code == 0 and "= 0.626" in out
    assert "note: 1 of 4 detections are for images not in the data set (ids 77); left out" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "val needs --data"),
        (["--data", "DATA"], "either --weights or --predictions"),
        (["rtdetr-tiny", "--data", "DATA"], "(rtdetr-tiny); which option is it for: --weights, --predictions, --data?"),
        (["--data", "DATA", "--weights", "a", "--predictions", "RESULTS"], "either --weights or --predictions"),
        (["--data", "DATA", "--predictions", "none.json"], "none.json: no such file"),
        (["--data", "none.json", "--predictions", "RESULTS"], "none.json: no such"),
        (["--data", "DATA", "--predictions", "RESULTS", "--max-dets", "0"], "'--max-dets': 0 is not in the range x>=1"),
        (["--data", "DATA", "--predictions", "RESULTS", "--evaluator", "mine"], "'detr', 'pycocotools'"),
        (["--data", "DATA", "--predictions", "RESULTS", "--conf", "0.5"], "--conf is for a model; leave it out with"),
        (["--data", "DATA", "--predictions", "RESULTS", "--slice", "64"], "--slice is for a model"),
        (["--data", "DATA", "--weights", "none.safetensors"], "none.safetensors"),
        (["--data", "DATA", "--weights", "MODEL", "--device", "warp"], "device 'warp' is not known"),
        (
            ["--data", "DATA", "--weights", "MODEL", "--imgsz", "100"],
            "imgsz 100: expected a multiple of 32",
        ),
        (["--data", "DATA", "--weights", "MODEL", "--conf", "2"], "--conf 2.0: expected a number from 0 to 1"),
        (["--data", "DATA", "--weights", "MODEL", "--conf", "nan"], "--conf nan: expected a number from 0 to 1"),
        (["--data", "DATA", "--weights", "MODEL", "--batch", "0"], "--batch"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(detr_val, truth, results, model_file, words, said):
    paths = {"DATA": truth, "RESULTS": results(RESULTS), "MODEL": model_file}
    code, out, err = detr_val(*(paths.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert said in err and err.count("\n") == 1


def test_a_model_is_measured_and_the_run_is_kept(detr_val, truth, model_file, tmp_path):
    folder = truth.parent.parent
    words = ["--weights", model_file, "--data", folder, "--workers", 0, "--device", "cpu"]
    code, out, err = detr_val(*words, "--batch", 2, "--imgsz", 128)
    assert code == 0, err
    assert out.count("Average") == 12 and "300" not in out.splitlines()[0]
    run = tmp_path / "runs" / "val" / "val"
    report = json.loads((run / "metrics.json").read_text())
    assert report["counts"]["images"] == 3
    assert report["counts"]["detections"] == 3 * 200  # 100 queries and two classes: every pair of an image
    assert report["run"]["batch"] == 2
    code, out, _ = detr_val("--predictions", run / "predictions.json", "--data", truth, "--json")
    assert json.loads(out)["metrics"] == report["metrics"]
    code, out, _ = detr_val(*words, "--imgsz", 32, "--half", "--json")
    assert json.loads(out)["run"]["imgsz"] == 32
    assert sorted(path.name for path in run.parent.iterdir()) == ["val", "val-2"]


def test_a_named_run_is_not_overwritten_unasked(detr_val, truth, model_file):
    words = ["--weights", model_file, "--data", truth.parent.parent, "--workers", 0, "--imgsz", 32, "--name", "one"]
    assert detr_val(*words)[0] == 0
    code, _, err = detr_val(*words)
    assert code == 2 and "already holds a run" in err
    assert detr_val(*words, "--overwrite")[0] == 0


def test_a_model_of_other_classes_is_refused_with_both_tables(detr_val, truth, tmp_path):
    path = tmp_path / "other.safetensors"
    config, classes = preset("rtdetr-tiny"), Classes.from_names(["circle", "dog"])
    weights.write(path, build_model(config, classes=classes).state_dict(), model=config.model_dump(), classes=classes)
    code, out, err = detr_val("--weights", path, "--data", truth.parent.parent, "--workers", 0)
    assert (code, out) == (1, "")
    assert "classes of the data" in err and "classes of the model" in err and "dog" in err
    assert "error: 1 of the data's 2 classes are unknown to the model by name: 'square'" in err
    assert not (tmp_path / "runs").exists()


def test_a_missing_picture_ends_with_1(detr_val, truth, model_file):
    (truth.parent.parent / "images" / "val" / "9.png").unlink()
    code, out, err = detr_val("--weights", model_file, "--data", truth.parent.parent, "--workers", 0)
    assert (code, out) == (1, "")
    assert "9.png" in err


def test_a_damaged_picture_ends_with_1_and_leaves_no_folder(detr_val, truth, model_file, tmp_path):
    (truth.parent.parent / "images" / "val" / "9.png").write_bytes(b"no picture")
    words = ["--weights", model_file, "--data", truth.parent.parent, "--workers", 0, "--imgsz", 32]
    code, out, err = detr_val(*words)
    assert (code, out) == (1, "")
    assert "9.png: not an image" in err and "Traceback" not in err
    assert list((tmp_path / "runs" / "val").iterdir()) == []


@pytest.mark.parametrize("words", [["--imgsz", "100"], ["--save-json", "file/x.json"]])
def test_what_cannot_be_done_is_found_before_a_folder_is_made(detr_val, truth, model_file, tmp_path, words):
    (tmp_path / "file").write_text("")
    code, out, err = detr_val("--weights", model_file, "--data", truth.parent.parent, "--workers", 0, *words)
    assert code in (1, 2) and out == "", err
    assert not (tmp_path / "runs").exists()


def test_measuring_predictions_does_not_load_torch(truth, results):
    words = ["detr", "val", "--predictions", str(results(RESULTS)), "--data", str(truth), "--json"]
    code = f"import atexit, sys; sys.argv = {words}; atexit.register(lambda: print('torch' in sys.modules)); "
    done = subprocess.run([sys.executable, "-c", code + "from detr.cli import main; main()"], capture_output=True)
    assert done.stdout.decode().splitlines()[-1] == "False", done.stderr


def test_fewer_layers_and_queries_find_less_and_the_report_says_so(detr_val, truth, model_file, tmp_path):
    words = ("--weights", model_file, "--data", truth, "--imgsz", "64", "--workers", "0", "--device", "cpu", "--json")
    report = json.loads(detr_val(*words, "--layers", "1", "--queries", "5")[1])
    assert (report["run"]["layers"], report["run"]["queries"]) == (1, 5)
    found = json.loads((tmp_path / "runs" / "val" / "val" / "predictions.json").read_text())
    assert len(found) == 3 * 5 * 2  # images, queries, classes
    code, _, err = detr_val(*words, "--layers", "9")
    assert code == 2 and "9 decoder layers: expected 1 to 3" in err
