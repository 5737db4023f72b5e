"""Published weights by name: where they are, what they reach, and a cache that checks what it holds.

The cache is `$DETR_HOME/weights` (`~/.cache/detr/weights`). `DETR_OFFLINE=1` forbids the network. Where the authors
publish no SHA-256, the one of the first download is recorded beside the file and checked ever after.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detr.download import fetch
from detr.errors import InputError, UsageError, did_you_mean
from detr.files import shipped, write_text

_STORAGE = "https://github.com/lyuwenyu/storage/releases/download"


@dataclass(frozen=True)
class Release:
    """One published file of weights."""

    model: str | None  # preset; None: a backbone only, to start a training from
    url: str | None  # None: comes with the toolkit
    ap: float | None  # published, COCO val2017, percent
    ap50: float | None
    sha256: str | None = None
    dataset: str = "COCO"
    note: str = ""

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1] if self.url else f"{self.model}.safetensors"


RELEASES: dict[str, Release] = {
    "rtdetr-tiny": Release("rtdetr-tiny", None, None, None, dataset="shapes"),
    "rtdetr-r18": Release("rtdetr-r18", f"{_STORAGE}/v0.1/rtdetr_r18vd_dec3_6x_coco_from_paddle.pth", 46.4, 63.7),
    "rtdetr-r34": Release("rtdetr-r34", f"{_STORAGE}/v0.1/rtdetr_r34vd_dec4_6x_coco_from_paddle.pth", 48.9, 66.8),
    "rtdetr-r50m": Release("rtdetr-r50m", f"{_STORAGE}/v0.1/rtdetr_r50vd_m_6x_coco_from_paddle.pth", 51.3, 69.5),
    "rtdetr-r50": Release("rtdetr-r50", f"{_STORAGE}/v0.1/rtdetr_r50vd_6x_coco_from_paddle.pth", 53.1, 71.2),
    "rtdetr-r101": Release("rtdetr-r101", f"{_STORAGE}/v0.1/rtdetr_r101vd_6x_coco_from_paddle.pth", 54.3, 72.8),
    "rtdetr-r18-obj365": Release(
        "rtdetr-r18",
        f"{_STORAGE}/v0.1/rtdetr_r18vd_5x_coco_objects365_from_paddle.pth",
        49.0,
        66.5,
        dataset="Objects365, then COCO",
    ),
    "rtdetr-r50-obj365": Release(
        "rtdetr-r50",
        f"{_STORAGE}/v0.1/rtdetr_r50vd_2x_coco_objects365_from_paddle.pth",
        55.2,
        73.4,
        dataset="Objects365, then COCO",
    ),
    "rtdetr-r101-obj365": Release(
        "rtdetr-r101",
        f"{_STORAGE}/v0.1/rtdetr_r101vd_2x_coco_objects365_from_paddle.pth",
        56.2,
        74.5,
        dataset="Objects365, then COCO",
    ),
    "rtdetrv2-r18": Release("rtdetrv2-r18", f"{_STORAGE}/v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1.pth", 48.1, 65.1),
    "rtdetrv2-r18-dsp": Release(
        "rtdetrv2-r18-dsp", f"{_STORAGE}/v0.1/rtdetrv2_r18vd_dsp_3x_coco.pth", 47.4, 64.8, note="discrete sampling"
    ),
    "rtdetrv2-r34": Release("rtdetrv2-r34", f"{_STORAGE}/v0.1/rtdetrv2_r34vd_120e_coco_ema.pth", 49.9, 67.5),
    "rtdetrv2-r50m": Release("rtdetrv2-r50m", f"{_STORAGE}/v0.1/rtdetrv2_r50vd_m_7x_coco_ema.pth", 51.9, 69.9),
    "rtdetrv2-r50": Release("rtdetrv2-r50", f"{_STORAGE}/v0.1/rtdetrv2_r50vd_6x_coco_ema.pth", 53.4, 71.6),
    "rtdetrv2-r101": Release("rtdetrv2-r101", f"{_STORAGE}/v0.1/rtdetrv2_r101vd_6x_coco_from_paddle.pth", 54.3, 72.8),
    "resnet18-vd": Release(
        None, f"{_STORAGE}/v0.1/ResNet18_vd_pretrained_from_paddle.pth", None, None, dataset="ImageNet"
    ),
    "resnet34-vd": Release(
        None, f"{_STORAGE}/v0.1/ResNet34_vd_pretrained_from_paddle.pth", None, None, dataset="ImageNet"
    ),
    "resnet50-vd": Release(
        None,
        f"{_STORAGE}/v0.1/ResNet50_vd_ssld_v2_pretrained_from_paddle.pth",
        None,
        None,
        dataset="ImageNet",
        note="learned from a larger network (SSLD)",
    ),
    "resnet101-vd": Release(
        None,
        f"{_STORAGE}/v0.1/ResNet101_vd_ssld_pretrained_from_paddle.pth",
        None,
        None,
        dataset="ImageNet",
        note="learned from a larger network (SSLD)",
    ),
}


def resolve(name_or_path: str | os.PathLike[str], *, say: Callable[[str], None] | None = None) -> Path:
    """The file behind a release name (downloaded if need be, hash checked) or behind a path.

    UsageError for an unknown name or a path where nothing is; InputError when a file can't be had or isn't what it was.
    """
    name = os.fspath(name_or_path)
    if not name:
        raise UsageError("an empty name of weights; expected a file or a release (`detr weights list` shows them)")
    if name in RELEASES:
        return _of_release(name, say or _to_stderr)
    path = Path(name)
    if path.exists():
        return path
    if "/" in name or os.sep in name or path.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise UsageError(f"no such weights file: {name}")
    nearest = did_you_mean(name, RELEASES) or "; `detr weights list` shows them"
    raise UsageError(f"{name!r} is neither a file of weights nor a release{nearest}")


def where(name: str) -> str:
    """What using the release `name` takes: `"embedded"`, `"cached"`, `"download"`, or `"missing"` (install again)."""
    release = RELEASES[name]
    if release.url is None:
        return "embedded" if _embedded(release).is_file() else "missing"
    return "cached" if cached_at(name).is_file() else "download"


def cached_at(name: str) -> Path:
    """Where the cache keeps (or would keep) the file of the release `name`."""
    home = Path(os.environ.get("DETR_HOME") or Path.home() / ".cache" / "detr")
    return home / "weights" / RELEASES[name].file_name


def recorded_hash(name: str) -> str | None:
    """SHA-256 to hold the file against: the published one, or the one recorded at the first download."""
    if RELEASES[name].sha256:
        return RELEASES[name].sha256
    record = _record(cached_at(name))
    return record.read_text(encoding="utf-8").split()[0] if record.is_file() else None


def _of_release(name: str, say: Callable[[str], None]) -> Path:
    release, path = RELEASES[name], cached_at(name)
    if release.url is None:
        if not _embedded(release).is_file():
            raise InputError(f"{name} comes with the toolkit, but {_embedded(release)} is missing; install again")
        return _embedded(release)
    if path.is_file():
        _check(name, path, say)
        return path
    if os.environ.get("DETR_OFFLINE", "0") not in ("", "0"):
        raise InputError(f"{name} is not in the cache and DETR_OFFLINE is set; get {release.url} and put it at {path}")
    say(f"{name}: downloading {release.url} to {path}")
    fetch(release.url, path, sha256=recorded_hash(name), progress=_shown)
    _check(name, path, say)
    return path


def _check(name: str, path: Path, say: Callable[[str], None]) -> None:
    """Hold a cached file against its hash; record the hash of one seen for the first time."""
    expected, actual = recorded_hash(name), file_sha256(path)
    if expected is None:
        write_text(_record(path), f"{actual}  {path.name}\n")
        say(f"{name}: no published SHA-256; recorded {actual[:16]}... and will check it from now on")
    elif actual != expected:
        path.unlink()
        raise InputError(
            f"{path} is not the file it was (SHA-256 {actual[:16]}..., expected {expected[:16]}...); deleted, "
            "run again to fetch it"
        )


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def _embedded(release: Release) -> Path:
    return shipped("weights") / release.file_name


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _shown(done: int, total: int | None) -> None:
    """One line on a terminal, moved along as bytes come."""
    if sys.stderr.isatty():
        share = f" of {total / 1e6:,.1f} MB ({done / total:.0%})" if total else " MB"
        print(f"\r{done / 1e6:,.1f}{share}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
