"""The dataset card: README.md of a mix, made from its manifest alone, so that every number in it can be checked.

card(manifest) -> Markdown that the Hugging Face Hub reads (metadata on top: splits, licences, size) and people too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
PURPOSES = {"sft": "supervised fine-tuning", "pair": "preference training", "prompt": "reinforcement learning", "candidates": "judging"}
KIND_TAGS = {
    "sft": ["sft", "instruction-tuning"],
    "pair": ["dpo", "preference"],
    "prompt": ["rlvr", "prompts"],
    "candidates": ["preference"],
}


def card(manifest: dict[str, Any], directory: Path) -> str:
    """The card's text; `directory` tells which splits there are."""
    identity = manifest["identity"]
    counts = identity["counts"]
    about = identity["config"].get("description") or f"A mix of {len(counts['by_source'])} sources for {PURPOSES[identity['kind']]}."
    splits = ", ".join(f"{n:,} {split}" for split, n in counts["splits"].items())
    parts = [
        _metadata(identity, directory),
        f"# {identity['name']}\n\n{about}",
        f"{counts['out']:,} rows ({splits}), {counts['tokens']:,} tokens ({counts['tokens_by']}); ids `{identity['ids_sha256'][:16]}`.",
        "## Composition\n\n" + composition(counts),
        "## What was dropped, and why\n\n" + funnel(counts),
        *left_out(counts),
        "Every dropped row is in `dropped/` with its reason: `python -m columnar.explain DIR ID` tells the story of one row.",
        "## Sources\n\n" + sources(identity),
        "## Duplicates\n\n" + duplicates(counts.get("duplicates")),
        "## Decontamination\n\n" + decontamination(counts.get("decontam")),
        "## How to rebuild\n\n```\npython -m curation.build_mix config.yaml --out DIR\n```",
        f"`config.yaml` lies beside this card with every setting resolved; seed {identity['seed']}. The same inputs give the same bytes.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(identity: dict[str, Any], directory: Path) -> str:
    splits = sorted({p.name.split("-")[0] for p in (directory / "rows").glob("*.parquet")})
    rows = identity["rows"]
    licenses = sorted({i["license"] for i in identity["inputs"] if i.get("license")})
    # `datasets` keeps what it once read of a local folder under the folder's last name and a hash of this block, and would go on giving
    # that after a rebuild, or for another mix in a folder of that name: the rows' hash makes every content its own
    files = {"config_name": "default", "description": f"rows {identity['rows_sha256'][:16]}"}
    data = {
        "configs": [{**files, "data_files": [{"split": s, "path": f"rows/{s}-*.parquet"} for s in splits]}],
        "license": licenses or ["unknown"],
        "size_categories": [next((label for bound, label in SIZES if rows < bound), "n>10M")],
        "tags": ["caravan", *KIND_TAGS[identity["kind"]]],
    }
    return "---\n" + yaml.safe_dump(data, sort_keys=True, allow_unicode=True) + "---"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; numbers right-aligned."""
    names = list(rows[0])
    numeric = [all(isinstance(r[n], int | float) for r in rows) for n in names]

    def show(value: Any) -> str:
        return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(names) + " |", "|" + "|".join("---:" if n else "---" for n in numeric) + "|"]
    return "\n".join(lines + ["| " + " | ".join(show(r[n]) for n in names) + " |" for r in rows])


def composition(counts: dict[str, Any]) -> str:
    """Rows and tokens of each source in the mix, and their share."""
    total = max(counts["tokens"], 1)
    rows = [
        {"source": name, "rows": c["out"], "tokens": c["tokens"], "share of tokens": f"{100 * c['tokens'] / total:.1f} %"}
        for name, c in counts["by_source"].items()
    ]
    return markdown_table(rows)


def funnel(counts: dict[str, Any]) -> str:
    """Per source: in, dropped by each reason, out."""
    return markdown_table(funnel_rows(counts))


def left_out(counts: dict[str, Any]) -> list[str]:
    """A sentence on the files that could not be read, where there were some."""
    if not counts.get("bad_files"):
        return []
    files = ", ".join(f"{c['bad_files']:,} of {name}" for name, c in counts["by_source"].items() if c.get("bad_files"))
    return [f"Files that could not be read were left out whole (`on_bad_file: skip`): {files}. `rejects.jsonl` names each and says why."]


def funnel_rows(counts: dict[str, Any]) -> list[dict[str, Any]]:
    """The funnel as rows of a table: one line a source and a total, one column a reason that occurred."""
    reasons = sorted(counts["by_reason"], key=lambda reason: (-counts["by_reason"][reason], reason))
    lines = []
    for name, c in [*counts["by_source"].items(), ("total", counts)]:
        dropped = c["dropped"] if name != "total" else counts["by_reason"]
        line: dict[str, Any] = {"source": name}
        line |= {"bad files": c.get("bad_files", 0)} if counts.get("bad_files") else {}
        line |= {"in": c["in"], "rejected": c["rejected"]}
        line |= {reason: dropped.get(reason, 0) for reason in reasons}
        line |= {"copies": c["copies"]} if counts["copies"] else {}
        lines.append(line | {"out": c["out"], "tokens": c["tokens"]})
    return lines


def sources(identity: dict[str, Any]) -> str:
    """Where each source came from: uri, pinned revision or content hash, licence, the amount asked for."""
    rows = [
        {
            "source": i["source"],
            "uri": i["uri"],
            "revision": i.get("revision") or f"sha256 {i['sha256'][:12]}",
            "licence": i.get("license") or "not stated",
            "asked": i["amount"],
        }
        for i in identity["inputs"]
    ]
    return markdown_table(rows)


def duplicates(report: dict[str, Any] | None) -> str:
    """How duplicates were sought, and what was not checked or may have been missed; how many were found stands in the funnel."""
    if not report:
        return "Not sought."
    notes = "\n".join(f"- {note}" for note in report["notes"])
    return f"Each removed row is in `hits/duplicates.parquet` with the row that is kept for it.\n\n{notes}"


def decontamination(report: dict[str, Any] | None) -> str:
    """What was checked against which benchmarks, what was found, and what could not be seen."""
    if not report:
        return "Not checked against any benchmark."
    rows = [
        {
            "benchmark": b["benchmark"],
            "use": b["policy"],
            "items": b["items"],
            "cannot be seen": b["unseeable"],
            "items hit": b["items_hit"],
            "rows that hold them": b["rows_hit"],
        }
        for b in report["benchmarks"]
    ]
    return f"Rule `{report['preset']}`. Paraphrases: {report['paraphrase']}.\n\n" + markdown_table(rows)
