from pathlib import Path

import pytest

from detr import releases
from detr.config import read_recipe, recipe_names
from detr.errors import InputError, UsageError
from detr.releases import RELEASES, Release

URL = "https://weights.example/a.pth"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DETR_OFFLINE", raising=False)
    monkeypatch.setitem(RELEASES, "test-release", Release("rtdetr-r18", URL, 1.0, 2.0))
    return tmp_path / "home"


@pytest.fixture
def server(monkeypatch):
    """Stands for the network: what `fetch` would get, and how often it was asked."""
    calls = []

    def fetch(url, path, *, sha256, progress):
        calls.append(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")

    monkeypatch.setattr(releases, "fetch", fetch)
    return calls


def test_every_release_comes_over_https_from_its_own_file():
    remote = [release for release in RELEASES.values() if release.url]
    assert all(release.url.startswith("https://") for release in remote)
    assert len({release.file_name for release in remote}) == len(remote)
    for name, release in RELEASES.items():
        assert name == "test-release" or name.startswith(release.model or "resnet")


def test_every_release_of_a_model_names_a_preset():
    named = {release.model for release in RELEASES.values() if release.model}
    assert named == set(recipe_names())


def test_every_recipe_with_frozen_norms_has_a_backbone_to_start_from():
    for name in recipe_names():
        backbone = read_recipe(name)["model"]["backbone"]
        if backbone.get("frozen_norms"):
            assert RELEASES[f"resnet{backbone['depth']}-vd"].model is None


def test_the_readme_of_the_weights_lists_every_release():
    text = (Path(__file__).parent.parent / "weights" / "README.md").read_text(encoding="utf-8")
    for name, release in RELEASES.items():
        if name == "test-release" or not release.url:
            continue
        if release.model:
            assert f"| `{name}` | {release.model} | {release.dataset} | {release.ap}, {release.ap50} |" in text
        else:
            assert f"| `{name}` | {release.file_name} |" in text


def test_a_file_is_itself(tmp_path):
    (tmp_path / "some.pth").write_bytes(b"x")
    assert releases.resolve(tmp_path / "some.pth") == tmp_path / "some.pth"


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(UsageError, match="did you mean 'rtdetr-r18'"):
        releases.resolve("rtdetr-r81")
    with pytest.raises(UsageError, match="detr weights list"):
        releases.resolve("yolo")
    with pytest.raises(UsageError, match="an empty name"):
        releases.resolve("")


def test_a_missing_path_is_said_to_be_a_path():
    with pytest.raises(UsageError, match=r"no such weights file: runs/best\.safetensors"):
        releases.resolve("runs/best.safetensors")


def test_the_first_download_records_the_hash_and_says_so(server, home):
    said = []
    path = releases.resolve("test-release", say=said.append)
    assert path == home / "weights" / "a.pth"
    assert len(said) == 2
    assert URL in said[0] and str(path) in said[0]
    assert releases.file_sha256(path)[:16] in said[1]
    assert releases.recorded_hash("test-release") == releases.file_sha256(path)
    assert releases.where("test-release") == "cached"


def test_the_second_time_neither_downloads_nor_speaks(server):
    releases.resolve("test-release", say=lambda text: None)
    said = []
    releases.resolve("test-release", say=said.append)
    assert said == []
    assert len(server) == 1


def test_a_cached_file_that_changed_is_deleted_and_fetched_again_under_the_same_hash(server):
    path = releases.resolve("test-release", say=lambda text: None)
    expected = releases.file_sha256(path)
    path.write_bytes(b"other")
    with pytest.raises(InputError, match="not the file it was"):
        releases.resolve("test-release")
    assert not path.exists()
    releases.resolve("test-release")
    assert server == [None, expected]


def test_a_published_hash_is_used_from_the_first_download(server, monkeypatch):
    monkeypatch.setitem(RELEASES, "test-release", Release("rtdetr-r18", URL, 1.0, 2.0, sha256="0" * 64))
    with pytest.raises(InputError, match="expected 0000"):
        releases.resolve("test-release")
    assert server == ["0" * 64]


def test_offline_names_the_url_and_the_place(server, monkeypatch, home):
    monkeypatch.setenv("DETR_OFFLINE", "1")
    with pytest.raises(InputError) as problem:
        releases.resolve("test-release")
    assert URL in str(problem.value)
    assert str(home / "weights" / "a.pth") in str(problem.value)
    assert server == []


def test_a_file_put_into_the_cache_by_hand_serves_offline(monkeypatch, home):
    monkeypatch.setenv("DETR_OFFLINE", "1")
    (home / "weights").mkdir(parents=True)
    (home / "weights" / "a.pth").write_bytes(b"weights")
    assert releases.resolve("test-release", say=lambda text: None).read_bytes() == b"weights"


def test_a_missing_embedded_file_is_an_error(monkeypatch):
    monkeypatch.setitem(RELEASES, "test-embedded", Release("no-such-model", None, None, None))
    assert releases.where("test-embedded") == "missing"
    with pytest.raises(InputError, match="comes with the toolkit"):
        releases.resolve("test-embedded")
