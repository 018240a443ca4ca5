"""Rejection sampling: K answers of the current model to each prompt, scored; the best of all rounds is what the next model learns from.

    python -m training.rejection_sampling out/sums/prompts --model out/sft --out out/rs1 --set samples=16
    python -m training.sft out/rs1 --model out/sft --out out/sft2
    python -m training.rejection_sampling out/sums/prompts --model out/sft2 --out out/rs2 --set pool=[out/rs1]

    score_by: verifier   the prompts' verifiers (only right answers are kept)
              reward     a reward model: reward_model: DIR; with safety_model: DIR Llama 2's piecewise reward of both
              judge      a language model: judge: {...} and models: [...], as for generation.judge

Llama 2-Chat (arXiv 2307.09288, 3.2.3): keeping only the last round's answers made the model forget, so `pool` names the earlier rounds;
the best temperature changes from round to round, so with several `temperatures` the first `sweep` prompts choose it.

OUT is a dataset of kind sft (the best answers); OUT/candidates has every answer with its score; OUT/curve.svg and curve.json show the
largest and the median reward against K.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from columnar import cli, store
from columnar.config import Config, override, parse, read_yaml
from columnar.errors import CaravanError, StoreError
from columnar.record import rehash, row_id, schema_of, to_batch
from generation.judge import JudgeConfig
from generation.models import ModelConfig

if TYPE_CHECKING:
    from generation.client import Client

VERSION = 1
Row = dict[str, Any]


class RejectionConfig(Config):
    """What is sampled, how it is scored, what is kept.

    Attributes:
        samples: answers for each prompt (K).
        temperatures: tried on the first `sweep` prompts; the one with the best mean of the largest rewards is used for all.
        min_score: answers below it are never kept; left out: 1 for verifiers (right), nothing for the others.
        pool: directories of earlier rounds; their answers compete with this round's.
        safety_model: scores in place of reward_model where a prompt is from `safety_sources` or the answer is likely unsafe, as in PPO.
    """

    samples: int = Field(8, ge=1)
    temperatures: list[float] = Field(default=[1.0], min_length=1)
    sweep: int = 64
    top_p: float | None = None
    max_tokens: int = 512
    score_by: Literal["verifier", "reward", "judge"] = "verifier"
    reward_model: str | None = None
    safety_model: str | None = None
    safety_sources: list[str] = Field(default_factory=list)
    judge: JudgeConfig | None = None
    models: list[ModelConfig] = Field(default_factory=list)
    own: dict[str, str] = Field(default_factory=dict)
    min_score: float | None = None
    pool: list[str] = Field(default_factory=list)
    processes: int = 2
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> RejectionConfig:
        if self.score_by == "reward" and not self.reward_model:
            raise ValueError("score_by: reward needs reward_model, the directory of one (python -m training.reward)")
        if self.score_by == "judge" and self.judge is None:
            raise ValueError("score_by: judge needs judge and models (see generation.judge)")
        if any(t <= 0 for t in self.temperatures):
            raise ValueError("temperatures: above 0, or all answers to a prompt are the same")
        return self

    @property
    def scorer(self) -> str:
        """What the scores depend on: only scores of the same scorer can be pooled."""
        from training.run import model_key

        said: Any = self.score_by
        if self.score_by == "reward":
            said = ["reward", model_key(str(self.reward_model))]
            said += [model_key(self.safety_model), sorted(self.safety_sources)] if self.safety_model else []
        elif self.score_by == "judge" and self.judge is not None:
            said = ["judge", self.judge.model_dump(), [m.identity for m in self.models]]
        return store.stage_key("scorer", VERSION, said, None)


def order_statistic(values: list[float], k: int, rank: int) -> float:
    """The expected rank-th smallest of k values drawn from these without replacement: exact, no draws."""
    n, ordered = len(values), sorted(values)
    return sum(x * math.comb(i, rank - 1) * math.comb(n - i - 1, k - rank) for i, x in enumerate(ordered)) / math.comb(n, k)


def curve(scores: list[list[float]], ks: list[int]) -> dict[str, list[float]]:
    """The largest and the median reward among K answers, means over prompts with enough of them (Llama 2's figure 7)."""
    out: dict[str, list[float]] = {"max": [], "median": []}
    for k in ks:
        some = [s for s in scores if len(s) >= k]
        out["max"].append(fmean(order_statistic(s, k, k) for s in some))
        middle = [(k + 1) // 2, k // 2 + 1]
        out["median"].append(fmean(fmean(order_statistic(s, k, r) for r in middle) for s in some))
    return out


async def sample(client: Client, rows: list[Row], config: RejectionConfig, temperature: float) -> list[Row]:
    """The rows as candidates: K answers each, those that never came left out."""
    from generation.flow import each
    from generation.respond import Slot, candidate, candidate_row
    from generation.wire import Request

    params: dict[str, Any] = {"temperature": temperature, "max_tokens": config.max_tokens, "seed": config.seed}
    params |= {"top_p": config.top_p} if config.top_p is not None else {}
    out: list[Row] = [{} for _ in rows]

    async def one(number: int) -> int:
        row = rows[number]
        messages = [{k: v for k, v in m.items() if v is not None} for m in row["prompt"]]
        replies = await client.samples(Request("policy", messages, params, 0, f"reject {row['id']}"), config.samples)
        found = [candidate(r, Slot("policy", i), params, "") for i, r in enumerate(replies) if r.outcome in ("ok", "truncated", "empty")]
        out[number] = candidate_row(row, found, "rejection")
        return number

    with cli.Progress(f"sample at {temperature:g}", len(rows), unit="prompts") as bar:
        async for _ in each(one, range(len(rows)), limit=2 * client.width):
            bar.add(1)
    return out


def score(rows: list[Row], config: RejectionConfig, cache: Path) -> list[Row]:
    """The rows with a score for every candidate that could be scored."""
    if config.score_by == "judge":
        return asyncio.run(_judged(rows, config, cache))
    if config.score_by == "reward":
        return _rewarded(rows, config)
    from generation.verify import judge_batch

    for row, (_, verdicts) in zip(rows, judge_batch(rows, None, config.own, config.processes), strict=True):
        for one, verdict in zip(row["candidates"], verdicts, strict=True):
            known = None if math.isnan(verdict.score) else verdict.score
            ended = one["finish_reason"] != "length"  # an answer that was cut off is not one to learn from
            one["score"] = known if ended or known is None else 0.0
            one["ratings"] = [{"aspect": p.name, "rating": known, "rationale": p.error or p.reason or None} for p in verdict.parts]
    return rows


def _rewarded(rows: list[Row], config: RejectionConfig) -> list[Row]:
    """Logits of the reward model, or of the safety model where that one decides (arXiv 2307.09288, 3.2.3)."""
    from generation.judge_local import reward_scores
    from training.ppo_math import UNSAFE

    least = math.log(UNSAFE / (1 - UNSAFE))
    for row in rows:
        talks = [[*row["prompt"], {"role": "assistant", "content": c["content"]}] for c in row["candidates"]]
        scores = reward_scores(str(config.reward_model), talks) if talks else []
        if config.safety_model and talks:
            safe, about = reward_scores(config.safety_model, talks), row["source"] in config.safety_sources
            scores = [s if about or s < least else h for h, s in zip(scores, safe, strict=True)]
        for one, value in zip(row["candidates"], scores, strict=True):
            one["score"] = value
    return rows


async def _judged(rows: list[Row], config: RejectionConfig, cache: Path) -> list[Row]:
    from generation.client import Client
    from generation.flow import each
    from generation.judge import Readable, judge_row, judges_of
    from generation.scores import apply

    judges, readable = judges_of(config.judge, config.models), Readable()  # type: ignore[arg-type]
    out: list[Row] = list(rows)
    async with Client(config.models, cache) as client:

        async def one(number: int) -> None:
            said, _ = await judge_row(client, judges, rows[number], config.seed, readable)
            out[number] = apply(rows[number], said, [j.called for j in judges])

        async for _ in each(one, range(len(rows)), limit=client.width):
            pass
    return out


def best_of(rounds: list[list[Row]], least: float | None) -> list[Row]:
    """The best answer to each prompt over all rounds (the newest of equals), as rows of kind sft; prompts without one are left out."""
    found: dict[str, tuple[float, int, Row, Row]] = {}
    for number, rows in enumerate(rounds):
        for row in rows:
            for one in row["candidates"]:
                if one["score"] is None or (least is not None and one["score"] < least):
                    continue
                prompt = row["parents"][0]
                if prompt not in found or one["score"] >= found[prompt][0]:
                    found[prompt] = (one["score"], number, row, one)
    return [_learnable(*found[prompt]) for prompt in sorted(found)]


def _learnable(value: float, number: int, row: Row, one: Row) -> Row:
    answer = {"role": "assistant", "content": one["content"], "thinking": one.get("thinking")}
    meta = {"round": number, "score": value, "temperature": json.loads(one["params"] or "{}").get("temperature")}
    return rehash(
        {
            "id": row_id("best", row["parents"][0], 0),
            "kind": "sft",
            "source": row["source"],
            "origin": row["origin"],
            "license": row["license"],
            "meta": json.dumps(meta, sort_keys=True),
            "parents": row["parents"],
            "messages": [*row["prompt"], answer],
        }
    )


def write(out: Path, name: str, kind: str, rows: list[Row], identity: dict[str, Any], started: float) -> store.Dataset:
    """One dataset directory."""
    (out / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(out / "rows", ignore_errors=True)
    writer = store.RowWriter(out, schema_of([kind]))
    writer.write(to_batch(rows, writer.schema))
    writer.close()
    said = {"rows": writer.rows, "rows_sha256": writer.content.hexdigest(), "ids_sha256": writer.ids.hexdigest()}
    stage = {"name": "rejection_sampling", "version": VERSION}
    store.write_manifest(out, {"name": name, "kind": kind, "stage": stage, **identity, **said}, started)
    return store.open_dataset(out)


def run_round(directory: Path, config: RejectionConfig, client: Client, model: str, out: Path) -> dict[str, Any]:
    """Sample, score, pool, keep, draw; returns what came of it.

    Raises:
        StoreError: a pooled round was scored by something else.
        CaravanError: no answer is good enough.
    """
    from generation.respond import prompts_of
    from generation.verifiers import check_rows

    started, dataset = time.time(), store.open_dataset(directory)
    rows = list(prompts_of(dataset))
    if config.score_by == "verifier":
        check_rows(rows, config.own)
    earlier = [_earlier(Path(path), config.scorer) for path in config.pool]
    sweep: dict[float, list[Row]] = {}

    async def sampled() -> list[Row]:
        async with client:
            for temperature in config.temperatures if len(config.temperatures) > 1 else ():
                sweep[temperature] = await sample(client, rows[: config.sweep], config, temperature)
                sweep[temperature] = await asyncio.to_thread(score, sweep[temperature], config, out / "judge.sqlite")
            return await sample(client, rows, config, _best_temperature(sweep, config))

    now = score(asyncio.run(sampled()), config, out / "judge.sqlite")
    sweep[_best_temperature(sweep, config)] = now
    curves = _curves(out, sweep, config.samples)
    least = config.min_score if config.min_score is not None else 1.0 if config.score_by == "verifier" else None
    kept = best_of([*earlier, now], least)
    if not kept:
        raise CaravanError("no answer is good enough to keep", f"look at {out / 'candidates'}, raise samples, or lower min_score")
    key = store.stage_key("rejection_sampling", VERSION, config.model_dump(mode="json"), [dataset.content, model])
    inputs = [{"uri": str(directory), "rows_sha256": dataset.content}]
    identity = {"key": key, "config": config.model_dump(mode="json"), "seed": config.seed, "scorer": config.scorer, "inputs": inputs}
    counts = {
        "prompts": len(rows),
        "answers": sum(len(r["candidates"]) for r in now),
        "unscored": sum(c["score"] is None for r in now for c in r["candidates"]),
        "kept": len(kept),
        "from_earlier_rounds": sum(json.loads(r["meta"])["round"] < len(earlier) for r in kept),
        "temperature": _best_temperature({t: r for t, r in sweep.items() if len(sweep) > 1}, config),
        "mean_best": curves["curves"][-1]["max"][-1],
    }
    write(out / "candidates", f"{out.name}/candidates", "candidates", now, {**identity, "counts": counts}, started)
    write(out, out.name, "sft", kept, {**identity, "counts": counts}, started)
    return counts


def _best_temperature(sweep: dict[float, list[Row]], config: RejectionConfig) -> float:
    def largest(rows: list[Row]) -> float:
        return fmean(max((c["score"] for c in r["candidates"] if c["score"] is not None), default=0.0) for r in rows)

    return max(sweep, key=lambda t: (largest(sweep[t][: config.sweep]), -t)) if sweep else config.temperatures[0]


def _earlier(path: Path, scorer: str) -> list[Row]:
    dataset = store.open_dataset(path / "candidates")
    if dataset.manifest["identity"].get("scorer") != scorer:
        raise StoreError(f"{path}: scored by something else, so its scores cannot be compared with this round's", "score both alike")
    return [row for batch in store.read_batches(dataset) for row in batch.to_pylist()]


def _curves(out: Path, sweep: dict[float, list[Row]], samples: int) -> dict[str, Any]:
    from training.plot import Curve, write_chart

    ks = sorted({*(2**i for i in range(samples.bit_length()) if 2**i <= samples), samples})
    lines, drawn = [], []
    for temperature, rows in sorted(sweep.items()):
        scores = [[c["score"] for c in row["candidates"] if c["score"] is not None] for row in rows]
        some = [k for k in ks if any(len(s) >= k for s in scores)]
        found = curve(scores, some)
        lines.append({"temperature": temperature, "k": some, **found})
        drawn += [Curve(f"{name}, T = {temperature:g}", some, found[name]) for name in ("max", "median")]
    told = {"curves": lines}
    store.write_json(out / "curve.json", told)
    write_chart(out / "curve.svg", "Reward of the best and the median of K answers", "K", "reward", drawn, log_x=True)
    return told


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    config = parse(RejectionConfig, override(read_yaml(args.config) if args.config else {}, args.settings), str(args.config or "--set"))
    cache = args.out / "replies.sqlite"
    if args.base_url:
        from generation.client import Client

        served = ModelConfig(name="policy", model=args.model, base_url=args.base_url, revision=args.revision)
        client, key = Client([served], cache), f"{args.model}@{args.revision}"
    else:
        from training.local_model import local_client
        from training.run import model_key

        client, key = local_client({"policy": args.model}, cache), model_key(args.model)
    counts = run_round(args.directory, config, client, key, args.out)
    cli.emit(counts) if args.json else print(cli.table([counts]))
    cli.say(f"learn from it: python -m training.sft {args.out} --model {args.model} --out NEXT; the curve: {args.out / 'curve.svg'}")
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("training.rejection_sampling", __doc__)
    made.add_argument("directory", type=Path, help="a dataset directory of prompts (of conversations: what is asked last)")
    made.add_argument("--model", required=True, help="a model directory or hub id; with --base-url its name on the server")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="this round's directory")
    made.add_argument("--config", type=Path, help="a YAML file")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override a setting")
    made.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server instead of a local model")
    made.add_argument("--revision", help="names the weights behind a server's model (a new one each round)")
    return made


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
