"""Configs: unknown keys, several problems at once, overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from columnar.config import Config, load, override, parse
from columnar.errors import ConfigError


class Source(Config):
    name: str
    rows: int | None = Field(None, gt=0)


class Mix(Config):
    name: str
    seed: int = 0
    sources: tuple[Source, ...] = Field((), min_length=1)


def test_unknown_key_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"sed: unknown key; did you mean 'seed'\?"):
        parse(Mix, {"name": "x", "sed": 3}, "mix.yaml")


def test_all_problems_are_told_at_once_and_name_the_source() -> None:
    data = {"sources": [{"name": "tulu", "row": 5}, {"name": "lima", "rows": -1}]}
    with pytest.raises(ConfigError) as caught:
        parse(Mix, data, "mix.yaml")
    text = str(caught.value)
    assert "mix.yaml: 3 problems" in text
    assert "name: missing" in text
    assert "sources[tulu].row: unknown key; did you mean 'rows'?" in text
    assert "sources[lima].rows: input should be greater than 0, found -1" in text


def test_a_list_is_called_a_list() -> None:
    with pytest.raises(ConfigError, match="sources: input should be a valid list, found 'a'"):
        parse(Mix, {"name": "x", "sources": "a"}, "mix.yaml")
    with pytest.raises(ConfigError, match=r"1 problem\n  sources: list should have at least 1 item"):
        parse(Mix, {"name": "x", "sources": []}, "mix.yaml")


def test_set_finds_list_items_by_name_or_number() -> None:
    data = {"name": "x", "sources": [{"name": "a", "rows": 1}, {"name": "b", "rows": 2}]}
    override(data, ["sources.b.rows=7", "sources.0.rows=5", "seed=3"])
    made = parse(Mix, data, "mix.yaml")
    assert [s.rows for s in made.sources] == [5, 7]
    assert made.seed == 3


@pytest.mark.parametrize("setting", ["seed", "sources.nobody.rows=1", "name.deeper.still=1"])
def test_wrong_set_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override({"name": "x", "sources": [{"name": "a"}]}, [setting])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not valid YAML"),
        ("name: a\nname: b", "the key 'name' twice"),
        ("- a\n- b", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(Mix, path)
    with pytest.raises(ConfigError, match="no such config file"):
        load(Mix, tmp_path / "none.yaml")
