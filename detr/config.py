"""Recipe files: typed, strict, one base at most.

A recipe is YAML over the frozen config classes that live beside what they configure. A value is found in at most three
places: the recipe, its one base, the default in the class.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic
import yaml

from detr.errors import UsageError, did_you_mean
from detr.files import shipped


class Config(pydantic.BaseModel):
    """Base of all settings: frozen, and an unknown key or a value of another type is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnyConfig = TypeVar("AnyConfig", bound=Config)

_LARGEST_RECIPE = 1_000_000  # bytes


def recipe_names() -> list[str]:
    """Names of the recipes that come with the toolkit, such as `rtdetr-r18`."""
    return sorted(path.stem for path in shipped("configs").glob("*.yaml"))


def read_recipe(name_or_path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The plain tree of a recipe: its base below it, then `key.sub=value` words on top. Not yet validated."""
    path = _find_recipe(name_or_path)
    tree = _read_yaml(path)
    base = tree.pop("base", None)
    if base is not None:
        below = _read_yaml(path.parent / base)
        if "base" in below:
            raise UsageError(f"{path}: its base {base} has a base itself; one base at most")
        tree = merged(below, tree)
    for word in overrides:
        tree = merged(tree, _branch(word))
    return tree


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, key by key; mappings merge, everything else replaces."""
    result = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            value = merged(result[key], value)
        result[key] = value
    return result


def validated(kind: type[AnyConfig], tree: Mapping[str, Any], source: str) -> AnyConfig:
    """`tree` as `kind`; UsageError names the first wrong key, what is there, what was expected and the nearest key."""
    try:
        return kind.model_validate(dict(tree))
    except pydantic.ValidationError as problem:
        raise UsageError(f"{source}: {_in_one_line(problem, kind)}") from None


def _find_recipe(name_or_path: str | os.PathLike[str]) -> Path:
    text = os.fspath(name_or_path)
    shipped_one = shipped("configs") / f"{text}.yaml"
    if "/" not in text and shipped_one.is_file():
        return shipped_one
    path = Path(text)
    if path.is_file():
        return path
    known = recipe_names()
    raise UsageError(f"recipe {text!r} is neither a file nor one of ours{did_you_mean(text, known)} Known: {', '.join(known)}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_RECIPE:
            raise UsageError(f"{path}: larger than a recipe can be ({_LARGEST_RECIPE:,} bytes)")
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as problem:
        raise UsageError(f"{path}: not readable as YAML: {' '.join(str(problem).split())}") from None
    except OSError as problem:
        raise UsageError(f"cannot read {path}: {problem.strerror}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return tree


class _UniqueKeys(yaml.SafeLoader):
    """A key given twice is a mistake, not a choice; an alias is not needed in a recipe and can be a bomb."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases are not allowed in recipes ({self.peek_event().start_mark})")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} is given twice {node.start_mark}")
        return super().construct_mapping(node, deep)


def _branch(word: str) -> dict[str, Any]:
    """`train.epochs=3` -> {"train": {"epochs": 3}}"""
    key, equals, text = word.partition("=")
    if not equals or not key or not all(key.split(".")):
        raise UsageError(f"{word!r}: expected key.sub=value, such as train.epochs=12")
    try:
        value = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError:
        raise UsageError(f"{word!r}: the value is not readable as YAML") from None
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _in_one_line(problem: pydantic.ValidationError, kind: type[Config]) -> str:
    first = problem.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if not _is_union_tag(part))
    if first["type"] == "extra_forbidden":
        owner = _config_at(kind, first["loc"][:-1])
        known = list(owner.model_fields) if owner else []
        return f"{place} is not a setting{f' of {owner.__name__}' if owner else ''}{did_you_mean(str(first['loc'][-1]), known)}"
    given = repr(first.get("input"))
    given = given if len(given) <= 60 else given[:57] + "..."
    return f"{place or 'recipe'}: {first['msg'][:1].lower()}{first['msg'][1:]}, got {given}"


def _is_union_tag(part: str | int) -> bool:
    return isinstance(part, str) and part.startswith("tag:")


def _config_at(kind: Any, location: tuple[str | int, ...]) -> type[Config] | None:
    """The config class that a place in the tree belongs to, looking through `X | None` and unions."""
    if not location:
        return kind if isinstance(kind, type) and issubclass(kind, Config) else None
    if isinstance(kind, type) and issubclass(kind, Config):
        inner = kind.model_fields.get(str(location[0]))
        if inner is None:
            return None
        for option in get_args(inner.annotation) or (inner.annotation,):
            for rest in (location[1:], location[2:]):  # a tagged union puts its tag into the location
                found = _config_at(option, rest)
                if found is not None:
                    return found
    return None
