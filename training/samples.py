"""Answers of a model under training, kept to be looked at: OUT/samples.jsonl while it runs, OUT/samples (a dataset directory) after it.

    python -m app out/rlvr/samples                       # kind candidates: a prompt's answers with reward and the verifiers' reasons

`alarms` reads the metrics of a run and says, in sentences, what looks like a reward that is being gamed rather than earned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from columnar import store
from columnar.record import rehash, row_id, schema_of, to_batch
from training.verified import Judged

VERSION = 1


class Samples:
    """Keeps the answers to the first few prompts of every so-many-th step."""

    def __init__(self, out: Path, every: int, prompts: int = 4, start: int = 0) -> None:
        self.path, self.every, self.prompts = out / "samples.jsonl", every, prompts
        self.step = -1
        out.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read(self.path) if line["step"] < start]  # a run that goes on writes those after its checkpoint again
        with store.whole_file(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def keep(self, step: int, rows: Sequence[dict[str, Any]], answers: Sequence[str], judged: Sequence[Judged]) -> None:
        """Write this batch's share, when it is time; once a step."""
        if not self.every or step % self.every or step == self.step:
            return
        self.step = step
        groups: dict[str, dict[str, Any]] = {}
        for row, answer, one in zip(rows, answers, judged, strict=True):
            if row["id"] not in groups and len(groups) == self.prompts:
                continue
            group = groups.setdefault(row["id"], {"step": step, **row, "candidates": []})
            parts = one.verdict.parts if one.verdict else ()
            ratings = [{"aspect": p.name, "rating": None if p.error else p.score, "rationale": p.error or p.reason or None} for p in parts]
            if one.model_score is not None:
                ratings.append({"aspect": "reward_model", "rating": one.model_score, "rationale": None})
            told = {"content": answer, "score": one.reward, "ratings": ratings, "finish_reason": "stop" if one.ended else "length"}
            group["candidates"].append(told)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(group, ensure_ascii=True) + "\n" for group in groups.values())


def read(path: Path) -> list[dict[str, Any]]:
    """The lines kept so far; a line cut off by a kill is left out."""
    out = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out


def write_samples(out: Path, model: str, key: str) -> int:
    """OUT/samples.jsonl -> OUT/samples, a dataset directory; returns its rows (0: nothing kept, nothing written)."""
    started, lines, directory = time.time(), read(out / "samples.jsonl"), out / "samples"
    if not lines:
        return 0
    rows = [_row(line, i, model) for i, line in enumerate(lines)]
    (directory / "manifest.json").unlink(missing_ok=True)
    writer = store.RowWriter(directory, schema_of(["candidates"]))
    writer.write(to_batch(rows, writer.schema))
    writer.close()
    identity = {
        "name": f"{out.name}/samples",
        "kind": "candidates",
        "stage": {"name": "samples", "version": VERSION},
        "key": store.stage_key("samples", VERSION, None, key),
        "config": {"model": model, "steps": sorted({line["step"] for line in lines})},
        "inputs": [],
        "rows": writer.rows,
        "rows_sha256": writer.content.hexdigest(),
        "ids_sha256": writer.ids.hexdigest(),
        "counts": {"rows": writer.rows},
    }
    store.write_manifest(directory, identity, started)
    return writer.rows


def _row(line: dict[str, Any], number: int, model: str) -> dict[str, Any]:
    step = line["step"]
    candidates = [{"model": model, "thinking": None, "params": json.dumps({"step": step}), **c} for c in line["candidates"]]
    return rehash(
        {
            "id": row_id("samples", f"{step}/{line['id']}", number),
            "kind": "candidates",
            "source": line.get("source") or "prompts",
            "origin": {"uri": "samples.jsonl", "revision": None, "split": None, "row": number},
            "meta": json.dumps({"step": step, "verifier": line.get("verifier"), "ground_truth": line.get("ground_truth")}),
            "parents": [line["id"]],
            "prompt": line["prompt"],
            "candidates": candidates,
        }
    )


def alarms(lines: Sequence[dict[str, Any]]) -> list[str]:
    """What in these metrics (the lines of metrics.jsonl) looks like gaming: first quarter against last, needs 8 lines."""
    train = [line for line in lines if "reward" in line]
    if len(train) < 8:
        return []
    quarter = len(train) // 4

    def ends(name: str) -> tuple[float, float] | None:
        parts = [[x[name] for x in part if x.get(name) is not None] for part in (train[:quarter], train[-quarter:])]
        return (fmean(parts[0]), fmean(parts[1])) if all(parts) else None

    out = []
    reward = ends("reward") or (0.0, 0.0)
    gained = reward[1] - reward[0]
    length = ends("completions/mean_length") or ends("answers/tokens")
    if length and length[0] and (length[1] > 2 * length[0] or length[1] < length[0] / 2):
        out.append(f"answers went from {length[0]:.0f} to {length[1]:.0f} tokens (reward {reward[0]:.2f} to {reward[1]:.2f})")
    kl = ends("kl")
    if kl and kl[1] > 0.5:
        out.append(f"the policy is {kl[1]:.2f} nats a token from its reference: a larger beta keeps it nearer")
    for name in sorted({name for line in train for name in line if name.startswith("verified/")}):
        change = ends(name)
        if change and gained > 0 and change[1] < change[0] - 0.1:
            out.append(f"{name} fell from {change[0]:.0%} to {change[1]:.0%} while the reward rose: it is paid for by another part")
    same = ends("answers/distinct")
    if same and same[1] < 0.3 <= same[0]:
        out.append(f"the answers to one prompt became the same ({same[1]:.0%} distinct): nothing left to choose from")
    cut = ends("answers/without_end")
    if cut and cut[1] > 0.2 and cut[1] > cut[0]:
        out.append(f"{cut[1]:.0%} of the answers never end")
    dev = [line["eval_reward"] for line in lines if line.get("eval_reward") is not None]
    if len(dev) > 3 and gained > 0 and fmean(dev[-2:]) < max(dev) - 0.2 * abs(max(dev)):
        out.append(f"the reward on the dev set fell from {max(dev):.2f} to {fmean(dev[-2:]):.2f} while the training reward rose")
    return out
