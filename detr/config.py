"""Recipe files: typed, strict, one base at most.

A recipe is YAML over the frozen config classes that live beside what they configure. A value is found in at most three
places: the recipe, its one base, the default in the class. A plan changes what one kind of training does differently,
whatever the recipe.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import pydantic
import yaml

from detr.errors import UsageError, did_you_mean, shortened
from detr.files import shipped


class Config(pydantic.BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnyConfig = TypeVar("AnyConfig", bound=Config)

_LARGEST_RECIPE = 250_000  # bytes
_FIRST_KIND = "resnet"  # of backbones that don't say theirs
_DEEPEST_RECIPE = 50  # levels of nesting


def recipe_names() -> list[str]:
    """Names of the recipes that come with the toolkit, such as `rtdetr-r18`."""
    return sorted(path.stem for path in shipped("configs").glob("*.yaml"))


def read_recipe(
    name_or_path: str | os.PathLike[str], overrides: Iterable[str] = (), *, plan: str | None = None
) -> dict[str, Any]:
    """The plain tree of a recipe: its base below it, then what a plan of ours changes, then `key.sub=value` words.

    Not yet validated.
    """
    path = _find_recipe(name_or_path)
    tree = read_yaml(path)
    base = tree.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise UsageError(f"{path}: base is {base!r}, expected the path of a recipe beside this one")
        below = read_yaml(path.parent / base)
        if below.get("base") is not None:
            raise UsageError(f"{path}: its base {base} has a base itself; one base at most")
        tree = merged(below, tree)
    if plan is not None:
        tree = merged(tree, read_yaml(shipped("configs") / "plans" / f"{plan}.yaml"))
    for word in overrides:
        tree = merged(tree, _branch(word))
    return tree


def tree_of_words(words: Iterable[str]) -> dict[str, Any]:
    """`key.sub=value` words alone, as a tree; UsageError for what is not such a word."""
    tree: dict[str, Any] = {}
    for word in words:
        tree = merged(tree, _branch(word))
    return tree


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys and values of a YAML file, read as YAML 1.2's core schema; UsageError for anything else in it.

    Anchors' aliases, tags, a key given twice, deep nesting and large files are refused: no recipe needs them.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= _LARGEST_RECIPE else ""
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text file in UTF-8") from None
    except (OSError, ValueError) as problem:
        raise UsageError(f"cannot read {path}: {getattr(problem, 'strerror', None) or problem}") from None
    if size > _LARGEST_RECIPE:
        raise UsageError(f"{path}: larger than a recipe can be ({_LARGEST_RECIPE:,} bytes); weights are for --weights")
    tree = _parsed(text, str(path))
    if tree is None:
        raise UsageError(f"{path} is empty; expected keys and values")
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return tree


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, key by key; mappings merge, unless they differ in `kind`: then the upper one replaces."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not _is_another(value, old):
            value = merged(old, value)
        result[key] = value
    return result


def _is_another(above: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    return "kind" in above and above["kind"] != below.get("kind", _FIRST_KIND)


def validated(kind: type[AnyConfig], tree: Mapping[str, Any], source: str) -> AnyConfig:
    """`tree` as `kind`; UsageError names the first wrong key, what is there, what was expected and the nearest key.

    Types are taken at their word: `true` is not 1 and `"12"` is not 12, but a whole number may stand for a float.
    """
    try:
        # Strict rules for Python values ask for tuples and paths, which YAML does not have; those for JSON do not.
        return kind.model_validate_json(json.dumps(tree), strict=True)
    except pydantic.ValidationError as problem:
        raise UsageError(f"{source}: {_in_one_line(problem, kind, tree)}") from None


def as_yaml(tree: Mapping[str, Any]) -> str:
    """A tree of plain values as the text of a recipe file."""
    return yaml.safe_dump(dict(tree), sort_keys=False, width=120)


def _find_recipe(name_or_path: str | os.PathLike[str]) -> Path:
    text = os.fspath(name_or_path)
    ours = recipe_names()
    if text in ours:
        return shipped("configs") / f"{text}.yaml"
    if os.path.isfile(text):
        return Path(text)
    if os.path.isdir(text):
        raise UsageError(f"recipe {text!r} is a folder, expected a YAML file or the name of a model (`detr models`)")
    near = did_you_mean(text, ours) or "; `detr models` lists them"
    raise UsageError(f"recipe {text!r} is neither a file nor one of ours{near}")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: `off`, `no`, dates and 1:30 are text, 1e-4 is a number. Nothing that can be a bomb."""

    def fetch_alias(self) -> NoReturn:
        raise yaml.MarkedYAMLError(problem="aliases (*) are not allowed", problem_mark=self.get_mark())

    def fetch_tag(self) -> NoReturn:
        raise yaml.MarkedYAMLError(problem="tags (!) are not allowed", problem_mark=self.get_mark())

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > _DEEPEST_RECIPE:
            problem = f"nested deeper than {_DEEPEST_RECIPE} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            known = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if known is not None and known in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(known)
        return super().construct_mapping(node, deep)


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _parsed(text: str, source: str) -> Any:
    """YAML text as plain values; UsageError in one line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except ValueError:
        raise UsageError(f"{source}: not readable as YAML: a number has too many digits") from None
    except yaml.YAMLError as problem:
        parts = [getattr(problem, part, None) for part in ("context", "problem")]
        said = ", ".join(part for part in parts if part) or " ".join(str(problem).split())
        mark = getattr(problem, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UsageError(f"{source}: not readable as YAML: {said}{where}") from None


def _branch(word: str) -> dict[str, Any]:
    """`train.epochs=3` -> {"train": {"epochs": 3}}"""
    key, equals, text = word.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts) or len(parts) > _DEEPEST_RECIPE:
        raise UsageError(f"{_short(word)}: expected key.sub=value, such as train.epochs=12")
    value = _parsed(text, _short(word))
    for part in reversed(parts):
        value = {part: value}
    return value


def _in_one_line(problem: pydantic.ValidationError, kind: type[Config], tree: Mapping[str, Any]) -> str:
    """What the first error says, in the words of the recipe."""
    errors = problem.errors(include_url=False)
    first = errors[0]
    if first["type"] == "missing":  # it may well be there, misspelt
        beside = (error for error in errors if error["loc"][:-1] == first["loc"][:-1])
        first = next((error for error in beside if error["type"] == "extra_forbidden"), first)
    location, context, error = first["loc"], first.get("ctx", {}), first["type"]
    place = _place(location, tree)
    if error == "extra_forbidden":
        owners = _owners(kind, location[:-1])
        return f"{place} is not a setting of {owners[0].__name__}{_nearest(place, owners, kind)}"
    if error == "missing":
        return f"{place} is missing"
    if error == "union_tag_not_found":
        return f"{place}.{context['discriminator'].strip(chr(39))} is missing"
    if error == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", context["expected_tags"])
        field = context["discriminator"].strip("'_()")  # a function's name, where old files may leave it out
        near = did_you_mean(context["tag"], known) or f", expected {' or '.join(map(repr, known))}"
        return f"{place}.{field} is {_short(context['tag'])}{near}"
    if error in ("model_type", "dict_type"):
        return f"{place}: expected keys and values, got {_short(first['input'])}"
    said = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = first.get("input")
    near = did_you_mean(given, re.findall(r"'([^']*)'", context["expected"])) if error == "literal_error" else ""
    said = f"{said[:1].lower()}{said[1:]}"
    return f"{place}: {said}, got {_short(given)}{near}" if place else said  # the whole file can't be shown


def _place(location: tuple[str | int, ...], tree: Any) -> str:
    """`train.epochs` of an error's location, which has names of classes and tags of unions in between."""
    parts: list[str] = []
    for number, part in enumerate(location):
        in_mapping = isinstance(tree, Mapping) and part in tree
        in_list = isinstance(tree, list) and isinstance(part, int) and part < len(tree)
        if in_mapping or in_list:
            tree = tree[part]
            parts.append(str(part))
        elif number == len(location) - 1 and isinstance(tree, Mapping | list):  # what is missing
            parts.append(str(part))
    return ".".join(parts)


def _owners(kind: Any, location: tuple[str | int, ...]) -> list[type[Config]]:
    """The config classes that may stand at a location; the right one alone where the location has its tag."""
    here = list(_configs_in(kind))
    if not location:
        return here
    part, rest = str(location[0]), location[1:]
    fields = [option.model_fields[part].annotation for option in here if part in option.model_fields]
    if fields:
        return [owner for field in fields for owner in _owners(field, rest)]
    tagged = [option for option in here if part == option.__name__ or part in _literals(option)]
    return [owner for option in tagged or here for owner in _owners(option, rest)]


def _configs_in(annotation: Any) -> Iterator[type[Config]]:
    """The config classes inside `X | None`, `Annotated[X, ...]`, unions, tuples and mappings."""
    plain = isinstance(annotation, type) and not get_args(annotation)  # list[int] is a type, too, in Python 3.10
    if plain and issubclass(annotation, Config):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _configs_in(inner)


def _literals(kind: type[Config]) -> set[str]:
    return {str(value) for field in kind.model_fields.values() for value in get_args(field.annotation)}


def _nearest(place: str, owners: list[type[Config]], root: type[Config]) -> str:
    """Did you mean a sibling, or a setting of this very name elsewhere in the recipe?"""
    word = place.rpartition(".")[2]
    sibling = did_you_mean(word, [name for owner in owners for name in owner.model_fields])
    elsewhere = [path for path in _paths(root) if path.rpartition(".")[2] == word and path != place]
    return sibling or (f"; did you mean {elsewhere[0]!r}?" if elsewhere else "")


def _paths(kind: type[Config], above: str = "", depth: int = 0) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        yield above + name
        for inner in _configs_in(field.annotation) if depth < 5 else ():
            yield from _paths(inner, f"{above}{name}.", depth + 1)


def _short(value: Any) -> str:
    return shortened(repr(value))
