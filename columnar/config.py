"""Strict YAML configs: unknown keys are errors with a suggestion, all problems are told at once, `--set a.b=c` overrides.

A config is a frozen pydantic model deriving from `Config`; this file turns text into it and pydantic's complaints into ours.
"""

from __future__ import annotations

import difflib
import types
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from columnar.errors import ConfigError


class Config(BaseModel):
    """Base of every config: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Config)


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error: else the first would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """One YAML mapping from a file.

    Raises:
        ConfigError: missing file, a YAML syntax error (with line), or something that is not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(data).__name__}")
    return data


def override(data: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Apply `--set a.b=c` settings: values are YAML, items of a list are found by their `name` or their number."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, for example --set seed=3")
        keys = path.strip().split(".")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: the value is not valid YAML") from error
        node: Any = data
        for key in keys[:-1]:
            node = _child(node, key, setting)
        if isinstance(node, list):
            node[_position(node, keys[-1], setting)] = value
        elif isinstance(node, dict):
            node[keys[-1]] = value
        else:
            raise ConfigError(f"--set {setting}: {'.'.join(keys[:-1])} is not a mapping")
    return data


def _child(node: Any, key: str, setting: str) -> Any:
    if isinstance(node, list):
        return node[_position(node, key, setting)]
    if isinstance(node, dict):
        if node.get(key) is None:
            node[key] = {}
        return node[key]
    raise ConfigError(f"--set {setting}: cannot go into {key!r}, found {type(node).__name__} on the way")


def _position(items: list[Any], key: str, setting: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(items):
        return int(key)
    known = ", ".join(str(n) for n in names if n)
    raise ConfigError(f"--set {setting}: no item {key!r} (items: {known or len(items)})")


def parse(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """The config, or one ConfigError that lists every problem.

    Args:
        where: what to call this config in messages, usually its path.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        inside = {e["loc"][:n] for e in found for n in range(len(e["loc"]))}
        # a list whose items are wrong is "too short" to pydantic
        found = [e for e in found if not (e["type"] == "too_short" and e["loc"] in inside)]
        problems = list(dict.fromkeys(_sentence(model, data, dict(e)) for e in found))
    raise ConfigError(f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''}\n" + "\n".join(f"  {p}" for p in problems))


def load(model: type[Model], path: Path | str, settings: list[str] | None = None) -> Model:
    """Read, override, check."""
    return parse(model, override(read_yaml(path), settings or []), str(path))


def _sentence(model: type[BaseModel], data: Any, error: dict[str, Any]) -> str:
    place = error["loc"]
    path = _name(data, place)
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        return f"{path}: unknown key" + (f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(sorted(known))})")
    if error["type"] == "missing":
        return f"{path}: missing"
    if error["type"] == "value_error":
        message = str(error["msg"]).removeprefix("Value error, ")
        return f"{path}: {message}" if place else message
    said = error["msg"][0].lower() + error["msg"][1:]
    return f"{path}: {said.replace('tuple', 'list')}, found {error['input']!r}"  # a frozen config holds tuples, its YAML lists


def _name(data: Any, place: tuple[Any, ...]) -> str:
    """`sources.0.rows` as `sources[tulu].rows`: people know their sources by name."""
    out, node = "", data
    for key in place:
        if isinstance(key, int) and isinstance(node, list) and key < len(node):
            node = node[key]
            out += f"[{node['name'] if isinstance(node, dict) and node.get('name') else key}]"
        elif isinstance(node, dict) or not out:
            node = node.get(key) if isinstance(node, dict) else None
            out += f".{key}" if out else str(key)
    return out


def _fields_at(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """The known keys of the (nested) model that `place` leads to."""
    found: list[type[BaseModel]] = [model]
    for key in place:
        if isinstance(key, str):
            found = [m for owner in found if key in owner.model_fields for m in _models_in(owner.model_fields[key].annotation)] or found
    return [name for owner in found for name in owner.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, list, tuple, dict) or get_args(annotation):
        return [m for part in get_args(annotation) for m in _models_in(part)]
    return []
