"""Answers that people have judged, in one form: what `generation.agreement` measures a judge against.

In: LLMBar, MT-Bench and FairEval (output_1, output_2, label), PandaLM (three annotators), Auto-J (response 1, response 2, label),
rankings (a list of answers, best first), ratings (one answer a record with a score), or a dataset directory of pairs or candidates.
Out: items: a prompt, two or more answers, and a human score for each.

    items = read_gold(Path("llmbar.parquet"))     # Item(id='0', prompt=..., answers=(.., ..), human=(1.0, 0.0), ...)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from columnar.errors import InputError

TIE = (0.5, 0.5)
FIRST, SECOND = (1.0, 0.0), (0.0, 1.0)


class Item(NamedTuple):
    """One prompt and its judged answers.

    Attributes:
        id: which record: its number in the file, or the row's id.
        human: a score for each answer, higher is better, equal = tie; None where the annotators have no common verdict.
        annotators: the same from each single annotator, where the set tells them apart.
        subset: the part of the set it belongs to, for a line of its own in the report.
    """

    id: str
    prompt: str
    answers: tuple[str, ...]
    human: tuple[float, ...] | None
    annotators: tuple[tuple[float, ...], ...] = ()
    subset: str = ""

    @property
    def decided(self) -> bool:
        """The people saw a difference."""
        return self.human is not None and len(set(self.human)) > 1


def read_gold(path: Path, limit: int | None = None) -> list[Item]:
    """The items of a file or a dataset directory.

    Raises:
        InputError: no known form; the message lists the columns found and the forms tried.
    """
    if (path / "manifest.json").is_file():
        items = _of_dataset(path)
    else:
        from columnar.readers import read

        records = []
        for record in read(path):
            if record.value is None:
                raise InputError(f"{path}, line {record.line}: {record.problem}", "human labels must be whole: correct the file")
            records.append(record.value)
        items = _of_records(records, path)
    return list(items)[:limit]


def _of_records(records: list[dict[str, Any]], path: Path) -> Iterator[Item]:
    fields = set(records[0]) if records else set()
    forms: list[tuple[set[str], Callable[[list[dict[str, Any]]], Iterator[Item]]]] = [
        ({"response1", "response2", "annotator1"}, _pandalm),
        ({"response 1", "response 2", "label"}, _autoj),
        ({"output_1", "output_2", "label"}, _llmbar),
        ({"input", "output_cand", "parsed_result"}, _just_eval),
        ({"instruction", "output"}, _ranked),
    ]
    for needed, form in forms:
        if needed <= fields and (form is not _ranked or isinstance(records[0]["output"], list)):
            return form(records)
    raise InputError(
        f"{path}: no form of human judgements we know; columns: {', '.join(sorted(fields)) or 'none'}",
        "expected one of: " + "; ".join(", ".join(sorted(needed)) for needed, _ in forms) + " (output a list); or a directory of pairs",
    )


def _label(value: Any, meaning: dict[int, tuple[float, float]], number: int) -> tuple[float, float]:
    if value not in meaning:
        raise InputError(f"record {number}: label {value!r}", f"expected one of {', '.join(map(str, meaning))}")
    return meaning[value]


def _llmbar(records: list[dict[str, Any]]) -> Iterator[Item]:
    for i, r in enumerate(records):
        human = _label(r["label"], {1: FIRST, 2: SECOND, 0: TIE}, i)
        yield Item(str(i), r.get("input") or r.get("instruction") or "", (r["output_1"], r["output_2"]), human, (), r.get("subset") or "")


def _autoj(records: list[dict[str, Any]]) -> Iterator[Item]:
    for i, r in enumerate(records):
        human = _label(r["label"], {0: FIRST, 1: SECOND, 2: TIE}, i)
        yield Item(str(i), r["prompt"], (r["response 1"], r["response 2"]), human)


def _pandalm(records: list[dict[str, Any]]) -> Iterator[Item]:
    """Three annotators; the human verdict is what at least two of them say, none when all three differ."""
    for i, r in enumerate(records):
        votes = [r[f"annotator{k}"] for k in (1, 2, 3)]
        each = tuple(_label(v, {0: TIE, 1: FIRST, 2: SECOND}, i) for v in votes)
        common = next((v for v in each if each.count(v) >= 2), None)
        prompt = r["instruction"] + (f"\n\n{r['input']}" if r.get("input") else "")
        answers = (str(r["response1"]), str(r["response2"]))  # a few are the JSON boolean true in the source
        yield Item(str(i), prompt, answers, common, each)


def _ranked(records: list[dict[str, Any]]) -> Iterator[Item]:
    """Open Assistant style: the answers of a prompt in the order of their human rank, best first."""
    for i, r in enumerate(records):
        history = r.get("history")
        turns = json.loads(history) if isinstance(history, str) else history or []
        before = "".join(f"{ask}\n\n{answer}\n\n" for ask, answer in turns)
        prompt = before + r["instruction"] + (f"\n\n{r['input']}" if r.get("input") else "")
        answers = tuple(r["output"])
        if len(answers) > 1:
            yield shuffled(Item(str(i), prompt, answers, tuple(float(-rank) for rank in range(len(answers)))))


def _just_eval(records: list[dict[str, Any]]) -> Iterator[Item]:
    """Ratings of single answers by a strong judge, one item a prompt with all its answers; the score is the mean of the aspects."""
    grouped: dict[str, list[tuple[str, float]]] = {}
    for i, r in enumerate(records):
        parsed = json.loads(r["parsed_result"])
        scores = [float(a["score"]) for a in parsed.values() if isinstance(a, dict) and str(a.get("score", "")).strip().isdigit()]
        if not scores:
            raise InputError(f"record {i}: no score in parsed_result", "expected {aspect: {reason, score}}")
        grouped.setdefault(r["input"], []).append((r["output_cand"], sum(scores) / len(scores)))
    for i, (prompt, rated) in enumerate(grouped.items()):
        yield Item(str(i), prompt, tuple(a for a, _ in rated), tuple(s for _, s in rated))


def _of_dataset(path: Path) -> Iterator[Item]:
    """Pairs (the chosen answer is better; equal recorded scores are a tie) and candidates (their scores)."""
    from columnar.store import open_dataset, read_batches

    for batch in read_batches(open_dataset(path)):
        for row in batch.to_pylist():
            prompt = flatten(row["prompt"])
            if row["kind"] == "pair":
                chosen, rejected = row.get("chosen_score"), row.get("rejected_score")
                human = TIE if chosen is not None and chosen == rejected else FIRST
                yield shuffled(Item(row["id"], prompt, (flatten(row["chosen"]), flatten(row["rejected"])), human, (), row["source"]))
            elif row["kind"] == "candidates":
                scored = [c for c in row["candidates"] if c["score"] is not None]
                if len(scored) > 1:
                    yield Item(row["id"], prompt, tuple(c["content"] for c in scored), tuple(c["score"] for c in scored), (), row["source"])
            else:
                raise InputError(f"{path}: rows of kind {row['kind']}", "agreement needs pairs or candidates with scores")


def shuffled(item: Item) -> Item:
    """The item with its answers in an order that depends on its id alone: sets that put the better answer first would reward a place."""
    keys = [hashlib.blake2b(f"{item.id}\x1f{i}".encode(), digest_size=8).digest() for i in range(len(item.answers))]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    human = item.human and tuple(item.human[i] for i in order)
    return item._replace(answers=tuple(item.answers[i] for i in order), human=human)


def flatten(messages: list[dict[str, Any]]) -> str:
    """A conversation as one text: a single turn alone, several with their roles."""
    if len(messages) == 1:
        return messages[0]["content"] or ""
    return "\n\n".join(f"{m['role']}: {m['content'] or ''}" for m in messages)
