"""Self-Instruct: from a few tasks written by people to many written by a model, every one new against all before it.

In: seed tasks (a file of tasks, or a dataset directory) and a model. Out: a dataset directory of prompts, or of prompts with answers.
The algorithm is that of Wang et al. (arXiv 2212.10560): each request shows eight tasks, six by people and two by the model, and asks for
more; what comes back passes the published filters in their order and then ROUGE-L <= 0.7 against every seed and every task accepted so
far (rouge.py); a task is classified (are its answers a few labels?), and its
instances are made output-first when it is, input-first when not.

    python -m generation.self_instruct self_instruct.yaml --out out/self --set until.rows=1000

Different from the published script, on purpose: texts keep their case (it lower-cased all but the first letter), an answer that was cut
off loses its last task only (it threw all away), every rejected candidate is kept with its reason, and the examples of a round are drawn
from the pool as it was when the round began, so that a round's requests run together and the result depends on the seed alone.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from columnar.cli import run
from columnar.errors import ConfigError, InputError
from columnar.files import SourceSpec
from columnar.load import iter_records
from columnar.record import row_id, text_hash
from generation import prompts
from generation.candidate import Candidate, Dropped, Job, MakerConfig, Step, asked_of, attempt, made_row, user
from generation.maker import Maker, arguments, command
from generation.material import Prompts, each_prompt, open_prompts

VERSION = 1
HUMAN, MACHINE, WANTED = 6, 2, 8
KEYWORDS = ("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot", "go to")
NO_LIMIT = 1 << 62
STALE_ROUNDS = 5  # so many rounds without a single new task: the model has nothing more to say
_NUMBERED = re.compile(r"^\s*(?:task\s*)?(\d{1,3})\s*[.):]\s*", re.IGNORECASE | re.MULTILINE)
_KEYWORD = re.compile(r"\b(?:" + "|".join(KEYWORDS) + r")\b", re.IGNORECASE)


class SelfInstructConfig(MakerConfig):
    """Seeds in, tasks out.

    Attributes:
        seeds: the tasks of people; only what is asked is used.
        make: `prompts`, or `answers` (the instances of the tasks as rows of prompt and answer).
        instances: at most so many per task; 0 = the bare instruction (the prompts of Self-Rewarding); `answers` needs at least 1.
        requests: per round; each asks for eight tasks.
        threshold: ROUGE-L F over which a task is not new.
        scripts: `ascii` is the published tokeniser and its rule that a task begins with an ASCII character; `any` is for other languages.
    """

    seeds: Prompts
    make: Literal["prompts", "answers"] = "prompts"
    instances: int = 1
    requests: int = 32
    threshold: float = 0.7
    scripts: Literal["ascii", "any"] = "ascii"
    classify: bool = True

    def check(self) -> None:
        """Raises ConfigError when the settings do not fit together."""
        super().check()
        if self.until.rows is None and self.until.candidates is None:
            raise ConfigError("until: missing", "say when to stop: until: {rows: 1000} (and a budget: candidates: 20000)")
        if self.make == "answers" and self.instances < 1:
            raise ConfigError("instances: answers need at least one instance per task", "set instances: 1 or more, or make: prompts")


class Task(NamedTuple):
    """A task in the pool: whose it is, and the rows it came from."""

    id: str
    text: str
    license: str | None


def why_not(text: str, scripts: str = "ascii") -> str | None:
    """The first published filter that a task fails, in the published order; None when it passes all."""
    words = text.split()
    if len(words) <= 3 or len(words) > 150:
        return "length"
    if _KEYWORD.search(text):
        return "keyword"
    if text.startswith("Write a program"):
        return "write_a_program"
    if not (text[0].isalnum() or not text[0].isascii()):
        return "punctuation_first"
    if scripts == "ascii" and not text[0].isascii():
        return "not_ascii_first"
    return None


def split_tasks(reply: str, truncated: bool = False) -> list[str]:
    """The tasks of a numbered list, white space made single, case kept; of a reply that was cut off the last is left out."""
    parts = _NUMBERED.split(reply)
    bodies = parts[2::2] if len(parts) > 1 else [line.lstrip("-*• ") for line in reply.splitlines()]
    tasks = [" ".join(body.split()) for body in bodies]
    return [t for t in (tasks[:-1] if truncated else tasks) if t]


def read_examples(reply: str) -> list[tuple[str, str]]:
    """(input, output) of each instance in a reply.

    Raises:
        Dropped: it holds no JSON of the form asked for (reason `unparsable`).
    """
    from msgspec import DecodeError, json

    start, end = reply.find("{"), reply.rfind("}")
    try:
        data = json.decode(reply[start : end + 1]) if start >= 0 else None
    except DecodeError:
        data = None
    examples = data.get("examples") if isinstance(data, dict) else None
    if not isinstance(examples, list):
        raise Dropped("unparsable", step="instances", text=reply)
    pairs = [(e.get("input") or "", e.get("output")) for e in examples if isinstance(e, dict)]
    return [(str(i).strip(), str(o).strip()) for i, o in pairs if o is not None]


def good_instances(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The published instance filters: no empty output, no output equal to its input, nothing that ends in a colon, no copies.

    Raises:
        Dropped: one input with different outputs (reason `contradiction`, the whole task goes), or none left (`no_instance`).
    """
    kept = [(i, o) for i, o in dict.fromkeys(pairs) if o and i != o and not i.endswith(":") and not o.endswith(":")]
    by_input = Counter(i for i, _ in kept)
    if any(n > 1 and i for i, n in by_input.items()):
        raise Dropped("contradiction", instances=pairs)
    if not kept:
        raise Dropped("no_instance", instances=pairs)
    return kept if kept[0][0] else kept[:1]


SCHEMA = {
    "type": "object",
    "properties": {
        "examples": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
                "required": ["input", "output"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["examples"],
    "additionalProperties": False,
}


async def make(job: Job) -> AsyncIterator[Candidate]:
    """Rounds: requests together, then the filters one candidate at a time in a fixed order, then the instances together."""
    from generation.rouge import RougePool

    config: SelfInstructConfig = job.config
    people = read_seeds(config.seeds, job.out)
    if len(people) < HUMAN + MACHINE:
        found = f"{config.seeds.path}: {len(people)} seed tasks"
        raise InputError(found, f"at least {HUMAN + MACHINE} are needed to show {HUMAN + MACHINE} examples")
    pool = RougePool([t.text for t in people], config.threshold, config.scripts)
    everyone = list(people)  # in the order of the pool
    machine: list[Task] = []
    goal, budget = config.until.rows or NO_LIMIT, config.until.candidates or 20 * (config.until.rows or 0)
    rows, candidates, stale, round_number = 0, 0, 0, 0
    while rows < goal and candidates < budget and stale < STALE_ROUNDS and not job.client.stopped:
        shown = [show(people, machine, config.seed, round_number * config.requests + n) for n in range(config.requests)]
        replies = await asyncio.gather(*(propose(job, tasks, round_number * config.requests + n) for n, tasks in enumerate(shown)))
        outcomes: list[Candidate | int] = []  # what became of each candidate: rejected, or its number among the accepted
        accepted: list[tuple[int, list[Task]]] = []  # place in the pool, the examples it was made from
        for (texts, failure), examples in zip(replies, shown, strict=True):
            outcomes += [failure] if failure else []
            for text in texts:
                about = {"text": text, "parents": [t.id for t in examples]}
                if candidates + len(outcomes) >= budget:
                    outcomes.append(Candidate(None, "not_needed", about))
                elif reason := why_not(text, config.scripts):
                    outcomes.append(Candidate(None, reason, about))
                elif match := pool.accept(text):
                    like = {"resembles": everyone[match.row].id, "rouge_l": round(match.score, 4)}
                    outcomes.append(Candidate(None, "not_new", {**about, **like}))
                else:
                    outcomes.append(len(accepted))
                    accepted.append((len(everyone), examples))
                    everyone.append(Task(f"{round_number}.{len(accepted)}", text, licenses(examples)))
        numbers = [candidates + i for i, outcome in enumerate(outcomes) if not isinstance(outcome, Candidate)]
        finished = await asyncio.gather(
            *(
                attempt(finish(job, everyone[at], examples, n), text=everyone[at].text)
                for n, (at, examples) in zip(numbers, accepted, strict=True)
            )
        )
        for outcome in outcomes:
            candidate = outcome if isinstance(outcome, Candidate) else finished[outcome]
            if candidate.row is not None and rows >= goal:
                candidate = Candidate(None, "not_needed", {"text": asked_of(candidate.row), "parents": candidate.row["parents"]})
            candidates += 1
            rows += candidate.row is not None
            yield candidate
        for (at, _), candidate in zip(accepted, finished, strict=True):
            if candidate.row:
                everyone[at] = everyone[at]._replace(id=candidate.row["id"])
                machine.append(everyone[at])
        stale = 0 if accepted else stale + 1
        round_number += 1


def read_seeds(spec: Prompts, out: Path) -> list[Task]:
    """The instructions of the seed tasks, without their inputs where a file keeps the two apart."""
    if not (Path(spec.path) / "manifest.json").is_file():
        name = Path(spec.path).name.split(".")[0]
        source = SourceSpec(name=name, path=spec.path, columns=spec.columns, limit=spec.limit)
        records = list(iter_records(source))
        if records and all(isinstance(r.get("instruction"), str) for _, _, r in records):
            return [Task(row_id(name, place, n), " ".join(r["instruction"].split()), spec.license) for place, n, r in records]
    return [Task(p.id, p.text, p.license) for p in each_prompt(open_prompts(spec, out), spec.limit) if p.usable]


def show(people: list[Task], machine: list[Task], seed: int, request: int) -> list[Task]:
    """The examples of one request: two by the model as soon as there are two, people's for the rest, shuffled."""
    from generation.statistics import generator

    draw = generator(seed, f"examples\x1f{request}")
    mine = [machine[i] for i in draw.permutation(len(machine))[:MACHINE]]
    theirs = [people[i] for i in draw.permutation(len(people))[: HUMAN + MACHINE - len(mine)]]
    both = mine + theirs
    return [both[i] for i in draw.permutation(len(both))]


def licenses(tasks: list[Task]) -> str | None:
    """The licences of the examples, which what was made from them inherits."""
    return ", ".join(sorted({t.license for t in tasks if t.license})) or None


async def propose(job: Job, examples: list[Task], sample: int) -> tuple[list[str], Candidate | None]:
    """The tasks that one request brought, and the candidate that stands for a request that brought none."""
    count = len(examples)
    numbered = "\n".join(f"{i}. {' '.join(t.text.split())}" for i, t in enumerate(examples, 1))
    fields: dict[str, Any] = {"count": count, "wanted": WANTED, "first": count + 1, "last": count + WANTED, "examples": numbered}
    try:
        return split_tasks(await job.ask(prompts.NEW_TASKS, sample, **fields)), None
    except Dropped as dropped:
        if dropped.reason == "truncated":
            tasks = split_tasks(dropped.detail.get("text", ""), truncated=True)
            if tasks:
                return tasks, None
        return [], Candidate(None, dropped.reason, {**dropped.detail, "parents": [t.id for t in examples]})


async def finish(job: Job, task: Task, examples: list[Task], number: int) -> dict[str, Any]:
    """An accepted task as a row: classified, with its instances."""
    config: SelfInstructConfig = job.config
    used = [prompts.NEW_TASKS]
    meta: dict[str, Any] = {"instruction": task.text}
    pairs = [("", "")]
    if config.instances:
        labels = False
        if config.classify:
            answer = await job.ask(prompts.CLASSIFY, params={"temperature": 0, "choices": ["yes", "no"]}, instruction=task.text)
            labels = answer.lower().lstrip("\"'*` ").startswith("yes")
            used.append(prompts.CLASSIFY)
            meta["is_classification"] = labels
        prompt = prompts.LABELLED if labels else prompts.INSTANCES
        used.append(prompt)
        answer = await job.ask(
            prompt, params={"json_schema": SCHEMA}, instruction=task.text, count=max(config.instances, 2 if labels else 1)
        )
        pairs = good_instances(read_examples(answer))[: config.instances]
        meta["instances"] = [{"input": i, "output": o} for i, o in pairs]
    given, output = pairs[0]
    asked = user(f"{task.text}\n\n{given}" if given else task.text)
    answered = config.make == "answers"
    payload = {"messages": [*asked, {"role": "assistant", "content": output}]} if answered else {"prompt": asked}
    parents = [t.id for t in examples]
    return made_row(job, "sft" if answered else "prompt", "self_instruct", number, payload, parents, task.license, used, meta)


def plan(job: Job) -> list[Step]:
    """About half of the candidates pass the filters of a good model at the start, fewer later: calls for that case."""
    config: SelfInstructConfig = job.config
    goal = config.until.rows or config.until.candidates or 0
    fields = {"count": 8, "wanted": 8, "first": 9, "last": 16, "examples": "x" * 800}
    steps = [Step("new tasks (if half are new)", -(-2 * goal // WANTED), config.writer, prompts.NEW_TASKS.messages(**fields), {})]
    if config.instances:
        task = "x" * 100
        if config.classify:
            steps.append(Step("classification or not", goal, config.writer, prompts.CLASSIFY.messages(instruction=task), {"max_tokens": 4}))
        steps.append(Step("instances", goal, config.writer, prompts.INSTANCES.messages(instruction=task, count=config.instances), {}))
    return steps


def inputs(config: SelfInstructConfig, out: Path) -> list[dict[str, Any]]:
    """The seeds, by what they say."""
    tasks = read_seeds(config.seeds, out)
    return [{"uri": config.seeds.path, "tasks": len(tasks), "hash": text_hash(t.id + t.text for t in tasks)}]


MAKER = Maker(
    "self_instruct", __doc__, VERSION, SelfInstructConfig, lambda c: "sft" if c.make == "answers" else "prompt", inputs, plan, make
)

if __name__ == "__main__":
    sys.exit(run(command(MAKER), arguments(MAKER)))
