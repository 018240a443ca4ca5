"""The contamination scan as a stage of a mix: all sources as one body of text, because what is common speech shows only across sources.

found = scan_sources(config, base, sources, cache)      scans once, then skips until a source, a benchmark or the rule changes
found.columns(number)                                   the verdict on each row of a source, in row order
found.write(out)                                        scans the rows of the mix again; hits/, report.json, the manifest's summary
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from columnar import cli
from columnar.engine import LOCAL, Engine
from columnar.filesystem import is_remote
from columnar.store import ROW_GROUP, Dataset, stage_key, table_writer, whole_file, write_json
from curation.decide import Loaded
from decontam.rules import DecontamConfig


@dataclass(frozen=True)
class Together(Dataset):
    """Several datasets read as one, in order."""

    parts: tuple[Dataset, ...] = ()

    @property
    def row_files(self) -> list[Path]:
        """The row files of all parts."""
        return [file for part in self.parts for file in part.row_files]


@dataclass(frozen=True)
class Scan:
    """A finished scan of all sources, in the cache."""

    home: Path
    key: str
    report: dict[str, Any]
    wanted: DecontamConfig

    def columns(self, number: int) -> Path:
        """The sidecar of one source (by number in name order): id, contaminated, benchmark, coverage, verdict, reason."""
        return self.home / "parts" / f"{number}.parquet"

    def write(self, out: Path, engine: Engine = LOCAL) -> dict[str, Any]:
        """Put the evidence and the report beside the mix's rows and give the manifest's summary. The rows are scanned again first.

        Raises:
            StoreError: a row of the mix still holds an item that was to be dropped.
        """
        from decontam.scan import recheck

        recheck(sorted((out / "rows").glob("*.parquet")), self.wanted, self.home, engine, out / ".rechecked")
        (out / "hits").mkdir(exist_ok=True)
        for name in ("decontam.parquet", "decontam_items.parquet"):
            shutil.copyfile(self.home / "hits" / name, out / "hits" / name)
        shutil.copyfile(self.home / "report.json", out / "report.json")
        report = self.report
        lines = [
            {
                "benchmark": b["benchmark"],
                "policy": b["policy"],
                "action": b["action"],
                "items": b["items"],
                "unseeable": b["unseeable"]["items"],
                "items_hit": b["hit"],
                "rows_hit": b["rows"],
                "verdict": b["verdict"],
            }
            for b in report["benchmarks"]
        ]
        return {"preset": report["rule"]["preset"], "rule": report["rule"], "paraphrase": report["paraphrase"], "benchmarks": lines}


def scan_sources(config: DecontamConfig, base: Path, sources: list[Loaded], cache: Path, engine: Engine = LOCAL) -> Scan:
    """Scan the rows of all sources for benchmark items; does nothing when the same scan is in the cache.

    Args:
        base: the mix file's folder, where a relative benchmarks path starts.
    """
    from decontam.benchmarks import fingerprint
    from decontam.scan import VERSION, scan_dataset

    wanted = config.model_copy(update={"benchmarks": _placed(config.benchmarks, base), "root": _root(config.root, base)})
    content = stage_key("together", 1, None, [source.dataset.content for source in sources])
    rows = sum(source.dataset.rows for source in sources)
    body = Together(cache, {"identity": {"name": "sources", "rows": rows, "rows_sha256": content}}, tuple(s.dataset for s in sources))
    said = config.model_dump(mode="json", exclude={"benchmarks", "root", "fail_on"})
    key = stage_key("scan", VERSION, said, [content, fingerprint(wanted.benchmarks, wanted.root)])
    home = cache / "decontam" / key
    if (home / "finished.json").is_file():
        return Scan(home, key, json.loads((home / "finished.json").read_text(encoding="utf-8")), wanted)
    with cli.Progress("decontaminate") as bar:
        report = scan_dataset(body, wanted, home, on_rows=bar.add, engine=engine)
    found = Scan(home, key, report, wanted)
    _split(found, sources)
    write_json(home / "finished.json", report)  # last: the sidecars of all sources are there
    return found


def _split(found: Scan, sources: list[Loaded]) -> None:
    """Cut the columns of all sources into one sidecar each."""
    columns = pq.ParquetFile(found.home / "cols" / "decontam.parquet")
    rest = pa.Table.from_batches([], columns.schema_arrow)
    batches = columns.iter_batches()
    for number, source in enumerate(sources):
        with whole_file(found.columns(number)) as temporary, table_writer(temporary, columns.schema_arrow, {"key": found.key}) as writer:
            missing = source.dataset.rows
            while missing:
                if not len(rest):
                    rest = pa.Table.from_batches([next(batches)])
                part, rest = rest.slice(0, missing), rest.slice(missing)
                writer.write_table(part, row_group_size=ROW_GROUP)
                missing -= len(part)


def _root(root: str | None, base: Path) -> str | None:
    return root if root is None or is_remote(root) else str(base / root)


def _placed(benchmarks: str | list[str], base: Path) -> str | list[str]:
    """Benchmark files and folders named relative to the mix file; registry names stay."""
    if isinstance(benchmarks, list):
        return [str(_placed(b, base)) for b in benchmarks]
    return str(base / benchmarks) if (base / benchmarks).exists() else benchmarks
