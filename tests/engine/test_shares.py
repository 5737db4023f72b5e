import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from detr import weights
from detr.classes import Classes
from detr.cli import program
from detr.data.shapes_video import moving_shapes, write_video
from detr.engine.shares import share_of
from detr.models import build_model
from detr.video import Source, find_sources
from tests import programs

ENDINGS = [".jpg", ".png", ".jpg", ".jpg", ".bmp"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five pictures, two of one name, and two files that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, ending in enumerate(ENDINGS):
        Image.new("RGB", (40 + 8 * number, 48), (50 * number, 90, 30)).save(folder / f"{number}{ending}")
    (folder / "more").mkdir()
    Image.new("RGB", (64, 40), (9, 200, 3)).save(folder / "more" / "1.jpg")
    for name in ("0-broken.jpg", "3-broken.jpg"):
        (folder / name).write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    network = build_model("rtdetr-tiny", classes=Classes((1, 2), ("cat", "dog")))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.write(path, network.state_dict(), model=network.config.model_dump(mode="json"), classes=network.classes)
    return path


@pytest.fixture(scope="module")
def predicted(tiny):
    """`detr predict` in so many processes -> their exit codes, stdouts and stderrs."""

    def run(folder, sources, size):
        words = [*sources, "--weights", tiny, "--imgsz", 64, "--conf", 0, "--max-det", 5, "--save-json", "--save-txt"]
        words += ["--project", folder, "--name", "x", "--device", "cpu", "--json", "--batch", 2]
        done = programs.run_team("-m", "detr", "predict", *words, size=size)
        return list(zip(*((each.returncode, each.stdout, each.stderr) for each in done), strict=True))

    return run


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory, pictures, predicted):
    out = tmp_path_factory.mktemp("runs")
    sources = [pictures, pictures / "more" / "1.jpg"]
    return [predicted(out / str(n), sources, n) for n in (1, 2)], out


def test_two_processes_leave_the_files_of_one(one_and_two):
    _, out = one_and_two
    one, two = (files(out / name / "predict" / "x") for name in "12")
    assert one.keys() == two.keys() and len(one) == 6 + 6 + 2
    assert one == two
    rows = json.loads(one[Path("predictions.json")])
    assert list(dict.fromkeys(row["file_name"] for row in rows)) == [
        "0.jpg",
        "1.png",
        "2.jpg",
        "3.jpg",
        "4.bmp",
        "1.jpg",
    ]


def test_failures_are_listed_once_and_in_order_by_the_process_that_leads(one_and_two):
    ((_, (alone,), _), (codes, outs, errs)), _ = one_and_two
    assert codes == (1, 0)
    told = json.loads(outs[0])
    assert not outs[1]
    assert [Path(each["source"]).name for each in told["failures"]] == ["0-broken.jpg", "3-broken.jpg"]
    assert errs[0].count("failed: ") == 2 and "2 of 8 sources failed" in errs[0] and "failed" not in errs[1]
    same = ("images", "videos", "frames", "detections", "failures", "notes")
    assert {name: told[name] for name in same} == {name: json.loads(alone)[name] for name in same}


def test_a_process_without_a_source_takes_part_all_the_same(tmp_path, pictures, predicted):
    codes, outs, errs = predicted(tmp_path, [pictures / "2.jpg"], 2)
    assert codes == (0, 0), errs
    assert json.loads(outs[0])["images"] == 1
    assert {path.name for path in files(tmp_path)} == {"2.jpg", "2.txt", "classes.txt", "predictions.json"}


def test_videos_in_tiles_are_followed_by_two_processes_as_by_one(tmp_path, tiny):
    pytest.importorskip("trackers")
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", (image for image, _ in moving_shapes(number, frames=4)))
    words = ["track", *sorted(tmp_path.glob("*.mp4")), "--weights", tiny, "--imgsz", 64, "--conf", 0, "--max-det", 5]
    words += ["--slice", 320, "--batch", 2, "--save-json", "--no-save", "--line", "0.5,0,0.5,1", "--device", "cpu"]
    words = [*map(str, words), "--name", "x", "--json"]
    both = programs.run_team("-m", "detr", *words, "--project", tmp_path / "two", size=2)
    assert [each.returncode for each in both] == [0, 0], both
    alone = CliRunner().invoke(program, [*words, "--project", str(tmp_path / "one")])
    assert alone.exit_code == 0, alone.stderr
    one, two = (files(tmp_path / name) for name in ("one", "two"))
    assert one == two and one.keys() == {Path(f"track/x/{number}.jsonl") for number in range(2)}
    told = [json.loads(each) for each in (alone.stdout, both[0].stdout)]
    same = ("videos", "frames", "detections", "tracks", "counts")
    assert [told[0][name] for name in same] == [told[1][name] for name in same] and told[0]["tracks"]


def test_videos_go_round_whatever_the_batch(tmp_path):
    sources = [*[Source("image", "a.jpg")] * 3, *[Source("video", "a.mp4")] * 3, *[Source("image", "b.jpg")] * 2]
    shares = [share_of(sources, rank=rank, of=2, batch=2).places for rank in range(2)]
    assert shares == [[0, 1, 3, 5], [2, 4, 6, 7]]


@pytest.mark.parametrize("count", [0, 1, 5, 8])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_each_source_is_in_one_share_with_a_name_of_its_own(tmp_path, count, batch, of):
    sources = [source for _ in range(count) for source in find_sources(_picture(tmp_path))]
    shares = [share_of(sources, rank=rank, of=of, batch=batch) for rank in range(of)]
    assert sorted(place for share in shares for place in share.places) == list(range(count))
    names = {place: name for share in shares for place, name in zip(share.places, share.names, strict=True)}
    assert [names[place] for place in range(count)] == ["a", *(f"a-{n}" for n in range(2, count + 1))][:count]


def _picture(folder):
    (folder / "a.jpg").touch()
    return folder / "a.jpg"
