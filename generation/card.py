"""README.md of what this room makes, so that `datasets.load_dataset(DIR)` reads the rows alone, and whoever opens DIR knows what it is.

card(identity) -> Markdown with the metadata that the Hugging Face Hub reads on top; made from the manifest's identity, nothing else
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from columnar.store import whole_file

TAGS = {"pair": ["dpo", "preference"], "candidates": ["preference"], "sft": ["sft"], "prompt": ["prompts"]}
WHAT = {
    "pair": "preference pairs (`prompt`, `chosen`, `rejected` as message lists, with both scores)",
    "candidates": "prompts with several models' answers, their ratings and scores (`candidates`)",
    "sft": "conversations (`messages`)",
    "prompt": "prompts (`prompt`, and what checks an answer)",
}


def card(identity: dict[str, Any]) -> str:
    """The text."""
    kind, stage = identity["kind"], identity["stage"]["name"]
    licenses = sorted({str(i["license"]) for i in identity["inputs"] if i.get("license")})
    files = {"config_name": "default", "description": f"ids {identity['ids_sha256'][:16]}, rows {identity['rows_sha256'][:16]}"}
    about: dict[str, Any] = {
        # with the rows' hash, since `datasets` would else go on giving what it once read in a folder of that name (see curation/card.py)
        "configs": [{**files, "data_files": [{"split": "train", "path": "rows/*.parquet"}]}],
        **({"license": licenses} if licenses else {}),
        "tags": ["caravan", "synthetic", *TAGS[kind]],
    }
    return (
        f"---\n{yaml.safe_dump(about, sort_keys=True, allow_unicode=True)}---\n\n# {identity['name']}\n\n"
        f"{identity['rows']:,} {WHAT[kind]}, made by `python -m generation.{stage}`; "
        f"seed {identity['seed']}, ids `{identity['ids_sha256'][:16]}`.\n\n"
        "The licence of a row stands in its `license`, what it was made of in `parents` and `meta`; settings, models and counts stand in "
        "`manifest.json`.\n"
    )


def write_card(out: Path, identity: dict[str, Any]) -> None:
    """OUT/README.md."""
    with whole_file(out / "README.md") as at:
        at.write_text(card(identity), encoding="utf-8")
