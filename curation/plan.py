"""What a build would do, and why, before it does anything: `--dry-run`. Writes nothing, and downloads no data.

plan(job) -> {name, kind, out, state, stages, sources: [{source, files, bytes, rows, take, load, signals}]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from columnar import cli
from columnar.files import SourceSpec, placed, resolve, sources_of
from columnar.filesystem import is_remote, place, shown
from columnar.remote import same
from columnar.store import open_dataset, sidecar_key, stage_key
from curation import signals as signal_stage
from curation.pipeline import Job, check_output, home_of, manifest_of, resolved


def plan(job: Job) -> dict[str, Any]:
    """What `build` would do: each source with its files and whether it is cached, the output and why it is stale. Writes nothing."""
    check_output(job)
    sources = []
    for _, source in job.sources:
        take = source.amount + (f" x{source.repeat}" if source.repeat > 1 else "")
        unseen = _to_fetch(job.spec(source), job.root)
        if unseen:
            blank = {"source": source.name, "files": None, "bytes": None, "revision": None, "rows": None, "take": take, "signals": "to do"}
            sources.append({**blank, **unseen})
            continue
        files = resolve(job.spec(source), job.root)
        home = home_of(job, source, files)
        known = (home / "manifest.json").is_file()
        others = sorted(home.parent.glob(home.name.rpartition("-")[0] + "-*")) if not known else []
        counts = open_dataset(home).manifest["identity"]["counts"] if known else {}
        sources.append(
            {
                "source": source.name,
                "files": len(files),
                "bytes": sum(f.bytes for f in files),
                "revision": next((f.revision for f in files if f.revision), None),
                "rows": counts.get("rows"),
                "take": take,
                "load": "cached" if known else "stale: the files or the settings changed" if others else "to do",
                "signals": "cached" if known and _signals_done(job, home) else "to do",
            }
        )
    ready = all(s["load"] == s["signals"] == "cached" for s in sources)
    manifest = manifest_of(job.out)
    if manifest is None:
        state = "to build"
    elif manifest["identity"]["config"] != resolved(job):
        state = "stale: the config changed: " + ", ".join(changed_keys(manifest["identity"]["config"], resolved(job)))
    elif not ready:
        state = "stale: a source changed"
    else:
        state = "up to date, unless flags changed"
    stages = [
        "load",
        "signals",
        *(["decontam"] if job.config.decontam else []),
        "rules",
        *(["dedup"] if job.config.dedup else []),
        "draw",
        "write",
    ]
    return {"name": job.config.name, "kind": job.config.kind, "out": shown(job.out), "state": state, "stages": stages, "sources": sources}


def describe(made: dict[str, Any]) -> str:
    """A plan for people."""
    head = f"{made['name']} ({made['kind']}) -> {made['out']}: {made['state']}\nstages: {' -> '.join(made['stages'])}\n"
    return head + cli.table([{**s, "bytes": f"{s['bytes'] / 1e6:,.1f} MB" if s["bytes"] is not None else None} for s in made["sources"]])


def _to_fetch(spec: SourceSpec, root: Path) -> dict[str, Any] | None:
    """For a plan: what is known of a remote source that is not on this machine, so that planning downloads nothing. None: all is here."""
    given = [placed(p, root) for p in ([spec.path] if isinstance(spec.path, str) else spec.path)]
    entries = [p for p in given if p.startswith("hf://")]
    objects = [item for p in given if is_remote(p) and not p.startswith("hf://") for item in sources_of(p, spec.split)]
    if spec.on_bad_file == "fail" and any(item.problem for item in objects):
        return None  # `resolve` says so before it copies anything
    away = [item for item in objects if item.problem is None and not same(place(item.url), item)]
    if away:
        return {"files": len(objects), "bytes": sum(item.size for item in objects), "load": f"to fetch {len(away)} files"}
    if not entries:
        return None
    from columnar.hub import HubUnreachable, is_fetched, list_hub

    try:
        found = [list_hub(entry, spec.revision, spec.split) for entry in entries]
    except HubUnreachable:
        return {"revision": spec.revision, "load": "to fetch; the Hub cannot be reached"}
    missing = [name for repo, commit, names in found for name in names if not is_fetched(repo, commit, name)]
    if not missing:
        return None
    return {"files": sum(len(names) for *_, names in found), "revision": found[0][1], "load": f"to fetch {len(missing)} files"}


def _signals_done(job: Job, home: Path) -> bool:
    dataset = open_dataset(home)
    key = stage_key("signals", signal_stage.VERSION, job.config.signals.resolved(job.root), dataset.content)
    return sidecar_key(dataset.sidecar("signals")) == key


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The top-level settings in which two resolved configs differ."""
    return sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
