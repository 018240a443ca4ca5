"""The report of a scan: what was found, by benchmark and by source, and what could not be seen. JSON, and tables for the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columnar import cli
from columnar.store import write_json
from decontam.rules import DecontamConfig

if TYPE_CHECKING:
    from columnar.store import Dataset
    from decontam.index import Index

BY_SOURCE = """
    SELECT r.source, h.benchmark, count(DISTINCT h.id) AS rows, count(DISTINCT h.item_id) AS items
    FROM read_parquet(?) h JOIN read_parquet(?, union_by_name = true) r ON h.id = r.id
    GROUP BY ALL ORDER BY ALL
"""
ITEMS = "SELECT benchmark, count(DISTINCT item_id) AS items, count(DISTINCT id) AS rows FROM read_parquet(?) GROUP BY ALL"


def make_report(
    dataset: Dataset, index: Index, wanted: DecontamConfig, out: Path, key: str, counts: dict[tuple[str, str], int]
) -> dict[str, Any]:
    """Count what the scan wrote, write report.json, return it.

    Args:
        counts: (source, verdict) -> rows.
    """
    import duckdb

    hits = str(out / "hits" / "decontam.parquet")
    rows = [str(file) for file in dataset.row_files]
    with duckdb.connect() as database:
        database.execute("SET memory_limit = '800MB'")
        pairs = database.execute(BY_SOURCE, [hits, rows]).fetchall()
        found = {name: (items, held) for name, items, held in database.execute(ITEMS, [hits]).fetchall()}
    rule = index.rule
    benchmarks = []
    for benchmark, seen in zip(index.benchmarks, index.seen, strict=True):
        items, held = found.get(benchmark.name, (0, 0))
        by_source = {s: {"rows": r, "items": i, "share": round(i / seen.items, 6)} for s, name, r, i in pairs if name == benchmark.name}
        over = sorted(s for s, line in by_source.items() if line["share"] > rule.dataset_share)
        benchmarks.append(
            {
                "benchmark": benchmark.name,
                "policy": benchmark.spec.policy,
                "action": getattr(wanted.policy, benchmark.spec.policy),
                "items": seen.items,
                "unseeable": {"items": seen.unseeable, "empty": seen.empty, "short": seen.short, "same": seen.same},
                "hit": items,
                "share": round(items / seen.items, 6),
                "rows": held,
                "by_source": by_source,
                "verdict": "contaminated" if over else "touched" if items else "clean",
                "sources_over": over,
                "fields": benchmark.spec.fields,
                "deciding": benchmark.spec.deciding or benchmark.spec.fields,
                "decide": benchmark.spec.decide,
                "guessed": benchmark.guessed,
                "license": benchmark.spec.license,
                "content": benchmark.content,
            }
        )
    report = {
        "key": key,
        "rule": {"preset": rule.name, "source": rule.source, "n": rule.n, "coverage": rule.coverage, "strict": rule.strict},
        "scanned": {"roles": rule.roles, "fields": wanted.fields},
        "dataset_share": rule.dataset_share,
        "common_ngrams": int(index.table.common.sum()),
        "ngrams": len(index.table.common),
        "rows": _rows(counts),
        "benchmarks": benchmarks,
        "sources": [
            {
                "source": source,
                **_rows({key: count for key, count in counts.items() if key[0] == source}),
                "over": sorted(b["benchmark"] for b in benchmarks if source in b["sources_over"]),
            }
            for source in sorted({source for source, _ in counts})
        ],
        "paraphrase": "not checked",
    }
    write_json(out / "report.json", report)
    return report


def _rows(counts: dict[tuple[str, str], int]) -> dict[str, int]:
    by = {verdict: sum(n for (_, v), n in counts.items() if v == verdict) for verdict in ("clean", "report", "drop")}
    return {"rows": sum(by.values()), "contaminated": by["report"] + by["drop"], "report": by["report"], "drop": by["drop"]}


def read_report(out: Path, key: str) -> dict[str, Any] | None:
    """The report of an earlier scan with this key, when there is one."""
    try:
        report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if report.get("key") == key else None


def report_tables(report: dict[str, Any]) -> str:
    """The report for the terminal: benchmarks, sources, what was not checked."""
    benchmarks = [
        {
            "benchmark": b["benchmark"],
            "policy": b["policy"],
            "items": b["items"],
            "unseeable": b["unseeable"]["items"],
            "hit": b["hit"],
            "%": round(100 * b["share"], 2),
            "rows": b["rows"],
            "verdict": b["verdict"],
            "rows by source": ", ".join(
                f"{s} {line['rows']}" for s, line in sorted(b["by_source"].items(), key=lambda x: -x[1]["rows"])[:4]
            ),
        }
        for b in report["benchmarks"]
    ]
    share = 100 * report["dataset_share"]
    sources = [
        {**{k: s[k] for k in ("source", "rows", "contaminated", "drop")}, f"over {share:g} % of": ", ".join(s["over"]) or "-"}
        for s in report["sources"]
    ]
    rule = report["rule"]
    lines = [
        f"rule {rule['preset']}: {rule['source']}",
        "",
        cli.table(benchmarks),
        "",
        cli.table(sources),
        "",
        f"common n-grams left out: {report['common_ngrams']:,} of {report['ngrams']:,}",
        f"paraphrase: {report['paraphrase']}",
    ]
    lines += [f"guessed for {b['benchmark']}: {b['guessed']}" for b in report["benchmarks"] if b["guessed"]]
    return "\n".join(lines)


def registry_table() -> str:
    """What the registry has."""
    from columnar.config import parse, read_yaml
    from decontam.benchmarks import REGISTRY, BenchmarkFile

    registry = parse(BenchmarkFile, read_yaml(REGISTRY), str(REGISTRY))
    rows = [
        {"name": name, "policy": spec.policy, "fields": ", ".join(spec.fields), "source": spec.source, "license": spec.license}
        for name, spec in registry.benchmarks.items()
    ]
    suites = [f"suite {name}: {', '.join(names)}" for name, names in registry.suites.items()]
    return "\n".join([cli.table(rows), "", *suites])
