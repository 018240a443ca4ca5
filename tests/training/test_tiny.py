"""Models out of nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from columnar.errors import ConfigError
from columnar.store import Dataset
from training import tiny


def test_the_same_seed_gives_the_same_model(colours: Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        tiny.make(colours.path, tmp_path / name, seed=seed)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "c" / "tokenizer.json").read_bytes()


def test_a_model_that_is_there_is_left_alone(colours: Dataset, tmp_path: Path) -> None:
    tiny.make(colours.path, tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").stat().st_mtime_ns
    tiny.make(colours.path, tmp_path / "m")
    assert (tmp_path / "m" / "model.safetensors").stat().st_mtime_ns == before


def test_every_text_survives_its_tokens(colours: Dataset) -> None:
    tokenizer = tiny.make_tokenizer(tiny.texts(colours), 500)
    for text in ("It is blue.", "Ωμέγα 是 🙂\t\x00", " 12345 "):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("12345")) == 5  # digits stay single


def test_an_unknown_size_is_told(colours: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown size 'huge'"):
        tiny.make(colours.path, tmp_path / "m", size="huge")
