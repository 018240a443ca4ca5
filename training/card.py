"""The model card: what was trained, on which data, with which settings, and how it came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from columnar.store import whole_file

if TYPE_CHECKING:
    from training.run import Job


def write_card(job: Job, identity: dict[str, Any]) -> None:
    """README.md in OUT."""
    data = job.dataset.manifest["identity"]
    name = data.get("name") or job.dataset.path.name
    front = {"base_model": job.model, "datasets": [name], "library_name": "transformers", "tags": ["trl", job.method]}
    settings = "\n".join(f"| {key} | {value} |" for key, value in identity["config"].items() if key != "about")
    sources = (data.get("counts") or {}).get("by_source") or {}
    mix = "\n".join(f"| {source} | {counts.get('out', counts.get('rows', ''))} |" for source, counts in sorted(sources.items()))
    results = "\n".join(f"| {key} | {value:.4g} |" for key, value in identity["metrics"].items() if isinstance(value, int | float))
    text = (
        f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---
# {job.out.name}

`{job.model}` trained with {job.method.upper()} on `{name}`.

- data: `{name}`, {job.dataset.rows:,} rows, content `{job.dataset.content}` (the dataset's manifest.json has the rest)
- loss: {identity["loss_reduction"]}
- run: `{identity["key"]}`; every setting is in config.yaml, every logged step in metrics.jsonl
{f"- settings after: {job.settings.about}" if job.settings.about else ""}

| setting | value |
|---|---|
{settings}
"""
        + (f"\n| source | rows |\n|---|---|\n{mix}\n" if mix else "")
        + (f"\n| result | value |\n|---|---|\n{results}\n" if results else "")
    )
    with whole_file(job.out / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
