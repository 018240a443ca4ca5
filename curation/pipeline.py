"""The stages of a mix in their order, each skipped when its key says it is done (curation.plan says beforehand what would be done).

load -> signals -> (decontam) -> (minhash)      one dataset directory a source, in the cache, shared by all mixes beside it
judge -> dedup -> draw -> write -> check        over narrow tables, into OUT/.building, which replaces the old output at the end
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from columnar import cli
from columnar.engine import LOCAL, Engine
from columnar.errors import StoreError
from columnar.files import SourceFile, SourceSpec, resolve
from columnar.filesystem import cache_dir, shown, under, url_of
from columnar.flags import read_flags
from columnar.ingest_on import Parts, ingested
from columnar.load import VERSION as LOAD
from columnar.load import load_source, shape_of, source_key
from columnar.remote import holds
from columnar.store import open_dataset, sidecar_key, stage_key, write_manifest
from curation import signals as signal_stage
from curation.card import card
from curation.decide import Loaded, cached_path, draw_rows, drop_contaminated, drop_flagged, judge_sources
from curation.dedup import DedupConfig
from curation.duplicates import drop_duplicates, embeddings_of, references, sign
from curation.mix import MixConfig, MixSource
from curation.report import count
from curation.scan import scan_sources
from curation.write import write_mix

VERSION = 1
BUILT = ("rows", "cols", "hits", "dropped", "README.md", "config.yaml", "rejects.jsonl", "report.json")
DEFAULT_MAX_REJECT = 0.0
DEFAULT_MAX_REJECT_HUB = 0.001


@dataclass(frozen=True)
class Job:
    """What to build, from where, to where."""

    config: MixConfig
    base: Path  # the config file's folder
    out: Path
    cache: Path
    limit: int | None = None
    force: bool = False
    engine: Engine = LOCAL

    @property
    def root(self) -> Path:
        """Where the relative paths of sources start."""
        return under(self.base, self.config.root)

    @property
    def sources(self) -> list[tuple[int, MixSource]]:
        """The sources in name order, each with its place in the config: nothing but `keep: source_order` goes by that place."""
        return sorted(enumerate(self.config.sources), key=lambda pair: pair[1].name)

    @property
    def dedup(self) -> DedupConfig | None:
        """How duplicates are sought, with the path of a file of embeddings as it is seen from here."""
        found = self.config.dedup
        if not found or not found.semantic or not found.semantic.embeddings:
            return found
        placed = str(under(self.root, found.semantic.embeddings))
        return found.model_copy(update={"semantic": found.semantic.model_copy(update={"embeddings": placed})})

    def spec(self, source: MixSource) -> SourceSpec:
        """What is loaded of a source: limits and defaults filled in, amounts left out, so that they do not make a load stale."""
        hub = any(str(p).startswith("hf://") for p in ([source.path] if isinstance(source.path, str) else source.path))
        default = self.config.max_reject if self.config.max_reject is not None else DEFAULT_MAX_REJECT_HUB if hub else DEFAULT_MAX_REJECT
        limits = [n for n in (self.limit, source.limit) if n is not None]
        reject = source.max_reject if source.max_reject is not None else default
        given = source.model_dump(include=set(SourceSpec.model_fields))
        return SourceSpec(**{**given, "limit": min(limits) if limits else None, "max_reject": reject})


def default_cache(out: Path) -> Path:
    """Mixes beside each other share one cache; so do those in one bucket, below the user's."""
    if url := url_of(out):
        return cache_dir() / "mixes" / url.split("/")[2]
    return out.absolute().parent / ".cache"


def build(job: Job) -> tuple[dict[str, Any], bool]:
    """Build the mix; returns its manifest and whether there was anything to do.

    Raises:
        CaravanError: see each stage; the output directory is then as it was before.
    """
    check_output(job)
    job.cache.mkdir(parents=True, exist_ok=True)
    with (job.cache / ".lock").open("w") as lock:  # builds that share a cache take turns
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            cli.say(f"waiting for another build that uses {job.cache}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(job)


def _build(job: Job) -> tuple[dict[str, Any], bool]:
    started = time.time()
    loaded = _load(job)
    signal_stage.measure([source.dataset for source in loaded], job.config.signals, job.root, job.engine)
    scan = scan_sources(job.config.decontam, job.base, loaded, job.cache, job.engine) if job.config.decontam else None
    dedup = job.dedup
    against = references(dedup, job.root) if dedup else []
    wanted = [f for f in read_flags(job.out) if f["flag"] in job.config.exclude_flags]
    key = stage_key(
        "mix",
        VERSION,
        resolved(job),
        [
            [[s.name, s.key, sidecar_key(s.dataset.sidecar("signals"))] for s in loaded],
            scan.key if scan else None,
            [dataset.content for dataset in against] + ([embeddings_of(dedup)] if dedup and dedup.semantic else []),
            sorted((f["id"], f["flag"], f.get("note") or "") for f in wanted),
        ],
    )
    manifest = manifest_of(job.out)
    if not job.force and manifest is not None and manifest["identity"]["key"] == key and _outputs_there(job.out, manifest):
        shutil.rmtree(job.out / ".building", ignore_errors=True)  # of a forced build that was cut off
        return manifest, False

    decisions = judge_sources(job.config, loaded)
    drop_flagged(decisions, loaded, wanted, job.config.exclude_flags)
    found = None
    if dedup:
        sign(dedup, loaded, against, job.engine)
        found = drop_duplicates(dedup, loaded, against, decisions)
    if scan:
        drop_contaminated(decisions, [scan.columns(number) for number in range(len(loaded))])
    draw_rows(job.config, loaded, decisions)

    building = job.out / ".building"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    stages = [{"signals": source.dataset.sidecar("signals")} for source in loaded]
    if scan:
        stages = [{**sides, "decontam": scan.columns(number)} for number, sides in enumerate(stages)]
    with cli.Progress(f"write {job.config.name}", len(decisions.fate)) as bar:
        writer = write_mix(building, job.config, loaded, decisions, found, stages, bar.add)
    counts = count(job.config, loaded, decisions)
    if found:
        found.write(building)
        counts["duplicates"] = {"notes": found.notes}
    if scan:
        counts["decontam"] = scan.write(building, job.engine)
    _count_bad_files(counts, loaded)
    _write_rejects(building, loaded)
    (building / "config.yaml").write_text(yaml.safe_dump(_rebuildable(job, loaded), sort_keys=False, allow_unicode=True), encoding="utf-8")
    identity = {
        "name": job.config.name,
        "kind": job.config.kind,
        "stage": {"name": "mix", "version": VERSION},
        "key": key,
        "config": resolved(job),
        "seed": job.config.seed,
        "inputs": [_input(source) for source in loaded],
        "rows": writer.rows,
        "rows_sha256": writer.content.hexdigest(),
        "ids_sha256": writer.ids.hexdigest(),
        "counts": counts,
    }
    (building / "README.md").write_text(card({"identity": identity}, building), encoding="utf-8")
    _replace(building, job.out)
    return write_manifest(job.out, identity, started), True


def _load(job: Job) -> list[Loaded]:
    """Every source as a dataset in the cache; on a cluster the files of all sources are read at once."""
    found = {source.name: resolve(job.spec(source), job.root) for _, source in job.sources}
    homes = {source.name: home_of(job, source, found[source.name]) for _, source in job.sources}
    apart = [
        s for _, s in job.sources if job.engine.remote and job.spec(s).limit is None and not (homes[s.name] / "manifest.json").is_file()
    ]
    with contextlib.ExitStack() as held:
        parts: dict[str, Parts] = {}
        if apart:
            read = [(job.spec(s), found[s.name], *shape_of(job.spec(s), found[s.name])[::2]) for s in apart]
            with cli.Progress("load", sum(len(files) for _, files, *_ in read), "files") as files_done:
                made = held.enter_context(ingested(job.engine, read, job.cache / ".loading" / str(LOAD), lambda _: files_done.add(1)))
            parts = dict(zip((s.name for s in apart), made, strict=True))
        for _, source in job.sources:
            with cli.Progress(f"load {source.name}") as bar:
                load_source(
                    job.spec(source),
                    homes[source.name],
                    files=found[source.name],
                    on_rows=lambda rows, rejects, bar=bar: bar.add(rows + rejects - bar.done),  # type: ignore[misc]
                    parts=parts.get(source.name),
                )
    shutil.rmtree(job.cache / ".loading", ignore_errors=True)  # of a run that was cut off
    return [Loaded(source, order, open_dataset(homes[source.name]), homes[source.name].name) for order, source in job.sources]


def home_of(job: Job, source: MixSource, files: list[SourceFile]) -> Path:
    """Where a source lies in the cache once it is loaded."""
    return cached_path(job.cache, "load", source.name, source_key(job.spec(source), files))


def resolved(job: Job) -> dict[str, Any]:
    """The config with every default spelled out and `--limit` applied: part of the mix's identity. Sources in name order."""
    config = job.config.model_dump(mode="json", exclude={"root"})
    config["sources"] = [_resolved_source(job, source) for _, source in job.sources]
    if job.config.dedup and job.config.dedup.keep == "source_order":
        config["source_order"] = [source.name for source in job.config.sources]
    return config


def _rebuildable(job: Job, loaded: list[Loaded]) -> dict[str, Any]:
    """The config as a file that builds the same mix from where it lies (OUT/config.yaml): paths turned, Hub commits filled in."""
    config = job.config.model_dump(mode="json", exclude_none=True)
    config["root"] = url_of(job.root) or _seen_from(job.out, job.root)
    pins = {s.name: {f["revision"] for f in s.dataset.manifest["identity"]["inputs"] if f.get("revision")} for s in loaded}
    config["sources"] = [_resolved_source(job, source) for source in job.config.sources]
    for source in config["sources"]:
        if len(pins[source["name"]]) == 1:
            source["revision"] = pins[source["name"]].pop()
    if job.config.decontam:
        named = job.config.decontam.benchmarks
        turned = [_turned(job, entry) for entry in ([named] if isinstance(named, str) else named)]
        config["decontam"]["benchmarks"] = turned[0] if isinstance(named, str) else turned
        if job.config.decontam.root:
            config["decontam"]["root"] = _turned(job, job.config.decontam.root)
    return config


def _turned(job: Job, path: str) -> str:
    """A path relative to the mix file, as a path relative to the output; what is no local path (a registry name, s3://) stays."""
    return _seen_from(job.out, job.base / path) if (job.base / path).exists() else path


def _seen_from(out: Path, path: Path) -> str:
    """A local path relative to the output; from an object store only the whole path leads back."""
    return str(path.absolute()) if url_of(out) else os.path.relpath(path.absolute(), out.absolute())


def _resolved_source(job: Job, source: MixSource) -> dict[str, Any]:
    whole = {**source.model_dump(mode="json"), **job.spec(source).model_dump(mode="json")}
    return {k: v for k, v in whole.items() if v is not None and v != {}}


def manifest_of(out: Path) -> dict[str, Any] | None:
    """The manifest of what is in the output directory; None when nothing whole is there."""
    path = out / "manifest.json"
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return data if isinstance(data.get("identity"), dict) else None


def check_output(job: Job) -> None:
    """Refuse to write over something that is not this mix.

    Raises:
        StoreError: the directory holds other files, or the dataset of another name, and --force was not given.
    """
    if not job.out.exists():
        return
    if not job.out.is_dir():
        raise StoreError(f"{shown(job.out)}: is a file, expected a directory", "give another --out")
    manifest = manifest_of(job.out)
    if manifest is not None:
        name = manifest["identity"].get("name")
        if not job.force and (name != job.config.name or manifest["identity"]["stage"]["name"] != "mix"):
            raise StoreError(
                f"{shown(job.out)}: belongs to {name!r}, this is {job.config.name!r}", "give another --out, or --force to replace it"
            )
        return
    strange = sorted(p.name for p in job.out.iterdir() if p.name not in {*BUILT, ".building", "flags.jsonl", "manifest.json"})
    if strange and not job.force:
        raise StoreError(f"{shown(job.out)}: not empty and not a mix (found {', '.join(strange[:5])})", "give another --out, or --force")


def _outputs_there(out: Path, manifest: dict[str, Any]) -> bool:
    sizes = {o["path"]: o["bytes"] for o in manifest["identity"]["outputs"]}
    if all((out / name).is_file() and (out / name).stat().st_size == size for name, size in sizes.items()):
        return True
    return holds(out, sizes)


def _count_bad_files(counts: dict[str, Any], loaded: list[Loaded]) -> None:
    """Add how many files were left out because they could not be read (on_bad_file: skip), in all and of each source."""
    for source in loaded:
        if number := source.dataset.manifest["identity"]["counts"].get("bad_files"):
            counts["by_source"][source.name]["bad_files"] = number
            counts["bad_files"] = counts.get("bad_files", 0) + number


def _write_rejects(building: Path, loaded: list[Loaded]) -> None:
    with (building / "rejects.jsonl").open("w", encoding="utf-8") as out:
        for source in loaded:
            path = source.dataset.path / "rejects.jsonl"
            if path.is_file():
                for line in path.open(encoding="utf-8"):
                    out.write(json.dumps({"source": source.name, **json.loads(line)}, ensure_ascii=False) + "\n")


def _input(source: Loaded) -> dict[str, Any]:
    files = source.dataset.manifest["identity"]["inputs"]
    digest = files[0]["sha256"] if len(files) == 1 else stage_key("files", 1, None, [f["sha256"] for f in files])
    return {
        "source": source.name,
        "uri": source.config.path if isinstance(source.config.path, str) else ", ".join(source.config.path),
        "revision": next((f["revision"] for f in files if f.get("revision")), None),
        "sha256": digest,
        "files": len(files),
        "bytes": sum(f["bytes"] for f in files),
        "rows": source.dataset.rows,
        "rows_sha256": source.dataset.content,
        "format": source.dataset.manifest["identity"]["counts"].get("format"),
        "license": source.config.license,
        "amount": source.config.amount + (f", repeat {source.config.repeat}" if source.config.repeat > 1 else ""),
    }


def _replace(building: Path, out: Path) -> None:
    """Put the finished parts in place. The manifest goes first and comes back last, so that no reader takes a half for a whole."""
    (out / "manifest.json").unlink(missing_ok=True)
    for name in BUILT:
        target = out / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    for part in sorted(building.iterdir()):
        part.rename(out / part.name)
    building.rmdir()
