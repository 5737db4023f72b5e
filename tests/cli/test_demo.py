import json

import pytest
from click.testing import CliRunner

from detr.cli.demo import command
from detr.engine import demo as demo_module
from detr.errors import UsageError

SMALL = """
model:
  version: 2
  num_queries: 20
  num_denoising: 5
  backbone: {depth: 18, width: 8}
  encoder: {channels: 32, hidden: 32, expansion: 0.5, depth: 0.34}
  decoder: {channels: 32, hidden: 32, num_layers: 1}
  input: {height: 64, width: 64}
train: {batch: 8, schedule: {shape: constant, warmup: 1}}
"""


@pytest.fixture
def short_video(monkeypatch):
    """A video is a function of the seed and long; its first frames are enough here."""
    from detr.data import shapes

    whole = shapes.moving_shapes
    monkeypatch.setattr(shapes, "moving_shapes", lambda seed: (frame for frame, _ in zip(whole(seed), range(8))))  # noqa: B905


def test_demo_leaves_a_page_a_video_and_numbers(tmp_path, short_video, as_told):
    done = CliRunner().invoke(command, ["--images", "3", "--project", str(tmp_path), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    report = as_told(done.stdout)
    out = tmp_path / "demo" / "demo"
    page = (out / "index.html").read_text()
    assert report["page"] == str(out / "index.html")
    assert report["predicted"]["frames"] == 8
    assert set(report["seconds_of"]) == {"drawing", "measuring", "predicting"}
    assert json.loads((out / "demo.json").read_text()) == report
    assert (out / "video" / "moving.mp4").stat().st_size > 1000
    assert len(list((out / "pictures").glob("*.jpg"))) == 3
    assert 'src="video/moving.mp4"' in page
    assert "rtdetr-tiny" in page


def test_demo_trains_from_scratch_when_asked(tmp_path, short_video, plain, monkeypatch, as_told):
    small = tmp_path / "small.yaml"
    small.write_text(SMALL)
    monkeypatch.setattr(demo_module, "MODEL", str(small))
    done = CliRunner().invoke(
        command,
        ["--train", "--train-images", "8", "--epochs", "2", "--images", "2", "--project", str(tmp_path), "--json"],
    )
    assert done.exit_code == 0, done.output
    report = as_told(done.stdout)
    assert report["trained"]["epochs"] == 2
    assert "Training" in (tmp_path / "demo" / "demo" / "index.html").read_text()


def test_demo_does_not_write_over_a_run(tmp_path):
    (tmp_path / "demo" / "mine").mkdir(parents=True)
    (tmp_path / "demo" / "mine" / "kept").touch()
    done = CliRunner().invoke(command, ["--name", "mine", "--project", str(tmp_path)])
    assert "already holds a run" in str(done.exception)


def test_a_device_that_is_not_there_is_found_before_anything_is_drawn(tmp_path):
    done = CliRunner().invoke(command, ["--device", "cuda:99", "--project", str(tmp_path)])
    assert isinstance(done.exception, UsageError) and "cuda:99" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
