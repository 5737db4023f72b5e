import dataclasses
import hashlib
import re
from pathlib import Path

import pytest

from detr import releases
from detr.config import recipe_names
from detr.errors import InputError, UsageError
from detr.models.presets import preset
from detr.releases import RELEASES, Release
from detr.training.start import backbone_release

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
    remote = [release for release in RELEASES.values() if release.url or release.page]
    assert all((release.url or release.page).startswith("https://") for release in remote)
    assert len({release.file_name for release in remote}) == len(remote)
    assert all(release.file_name.endswith((".pth", ".safetensors")) for release in remote)
    for name, release in RELEASES.items():
        assert name == "test-release" or name.startswith(release.model or ("resnet", "hgnetv2"))


def test_every_release_of_a_model_names_a_preset():
    named = {release.model for release in RELEASES.values() if release.model}
    assert named == set(recipe_names())


def test_every_model_of_others_has_a_release_of_its_own_name_that_says_what_it_reaches():
    for name in recipe_names():
        release = RELEASES[name]
        assert release.model == name
        assert (release.ap is None) == (release.dataset == "shapes")


def test_every_hash_is_one_or_the_start_of_one():
    for release in RELEASES.values():
        assert release.sha256 is None or re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", release.sha256)


def test_every_recipe_with_frozen_norms_has_a_backbone_to_start_from():
    for name in recipe_names():
        backbone = preset(name).backbone
        if getattr(backbone, "frozen_norms", False):
            assert RELEASES[backbone_release(backbone)].model is None


def test_the_readme_of_the_weights_lists_every_release():
    text = (Path(__file__).parent.parent / "weights" / "README.md").read_text(encoding="utf-8")
    for name, release in RELEASES.items():
        if name == "test-release" or name == "rtdetr-tiny":
            continue
        if release.model:
            reached = f"{release.ap}, {release.ap50}" if release.ap50 else release.ap
            assert f"| `{name}` | {release.model} | {release.dataset} | {reached} |" in text
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
    with pytest.raises(UsageError, match=r"no such weights file: rtdetr-l\.pt; did you mean 'rtdetr-l'\?"):
        releases.resolve("rtdetr-l.pt")
    with pytest.raises(UsageError, match=r"no such weights file: runs/best\.safetensors"):
        releases.resolve("runs/best.safetensors")
    with pytest.raises(
        UsageError, match=r"no such weights file: PekingU/rtdetr_r18vd; nothing is fetched from the Hub"
    ):
        releases.resolve("PekingU/rtdetr_r18vd")


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


def test_the_start_of_a_hash_is_held_against_the_file_and_then_the_whole(server, monkeypatch):
    start = hashlib.sha256(b"weights").hexdigest()[:8]
    monkeypatch.setitem(RELEASES, "test-release", Release("rtdetr-r18", URL, 1.0, 2.0, sha256=start))
    said = []
    path = releases.resolve("test-release", say=said.append)
    assert server == [start]
    assert f"only {start}... of its SHA-256 is published" in said[1]
    assert releases.recorded_hash("test-release") == releases.file_sha256(path)
    path.write_bytes(b"other")
    with pytest.raises(InputError, match="not the file it was"):
        releases.resolve("test-release")


def test_a_file_that_begins_with_another_hash_is_refused(server, monkeypatch):
    monkeypatch.setitem(RELEASES, "test-release", Release("rtdetr-r18", URL, 1.0, 2.0, sha256="0" * 8))
    with pytest.raises(InputError, match="expected 00000000"):
        releases.resolve("test-release")


def test_what_only_a_browser_can_fetch_says_where_it_is_and_where_to_put_it(server, monkeypatch, home):
    page = "https://drive.example/view"
    release = Release("rtdetr-r18", None, 1.0, page=page, saved_as="by-hand.pth", sha256="0" * 64)
    monkeypatch.setitem(RELEASES, "test-release", release)
    assert releases.where("test-release") == "by hand"
    with pytest.raises(InputError) as problem:
        releases.resolve("test-release")
    path = home / "weights" / "by-hand.pth"
    assert page in str(problem.value) and str(path) in str(problem.value)

    path.parent.mkdir(parents=True)
    path.write_bytes(b"another file")
    with pytest.raises(InputError, match="is not the published file"):
        releases.resolve("test-release")
    assert path.is_file()  # whoever fetched it may want it

    whole = dataclasses.replace(release, sha256=hashlib.sha256(b"another file").hexdigest())
    monkeypatch.setitem(RELEASES, "test-release", whole)
    assert releases.resolve("test-release") == path
    assert releases.where("test-release") == "cached"
    assert server == []


def test_offline_names_the_url_and_the_place(server, monkeypatch, home):
    monkeypatch.setenv("DETR_OFFLINE", "1")
    with pytest.raises(InputError) as problem:
        releases.resolve("test-release")
    assert URL in str(problem.value)
    assert str(home / "weights" / "a.pth") in str(problem.value)
    assert server == []


def test_nothing_is_downloaded_where_it_cant_be_kept(server, home):
    home.touch()
    with pytest.raises(InputError, match="set DETR_HOME"):
        releases.resolve("test-release")
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
