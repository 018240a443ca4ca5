"""Evaluation: tasks that cannot drift, scores that say what they rest on, local models whose answers do not depend on their batch."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("openai")

from columnar.errors import CaravanError, ConfigError, InputError, StoreError
from columnar.store import open_dataset, read_batches
from generation.wire import Reply, Request
from training import evaluate
from training.results import read_scores, write_olmes
from training.tasks import FOLDER, Task, find_task, read_items

# a task's key changes with everything that a score depends on: whoever changes one here gives it another name, not another meaning
PINNED = {
    "gsm8k::tulu3": "a61144b7d8ecbe01",
    "humaneval::greedy": "1081586b0f940772",
    "humaneval::tulu3": "dbbef5a3991031ac",
    "ifeval::tulu3": "5b45650fd33b300d",
    "math500::tulu3": "40e62b6d440f9817",
    "mbpp::greedy": "19771fe46d2e0188",
    "mbpp::tulu3": "e83dfc907bc206be",
    "mmlu_pro::tulu3": "9db27e8a7bb4a6f3",
}


def run(*args: str) -> int:
    return evaluate.main(evaluate.arguments().parse_args([str(a) for a in args]))


def said(text: str, outcome: str = "ok") -> Reply:
    return Reply(Request("m", []), outcome, text, completion_tokens=3, raw="{}")


def test_the_tasks_are_what_they_were() -> None:
    tasks = [find_task(str(path)) for path in FOLDER.glob("*.yaml")]
    assert {task.name: task.key for task in tasks} == PINNED
    assert {task.policy for task in tasks} == {"dev", "unseen"}


def test_a_misspelt_task_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'gsm8k::tulu3'"):
        find_task("gsm8k::tulu")
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nprompt: '{q}'\nverifier: exact\nground_truth: '{a}'\nmetric: pass@5\n")
    with pytest.raises(ConfigError, match=r"pass@5 needs decoding.samples of at least 5"):
        find_task(str(mine))


@pytest.mark.parametrize(
    ("name", "items", "gold"),
    [
        ("gsm8k::tulu3", 1319, lambda r: r["answer"]),
        ("math500::tulu3", 500, lambda r: r["solution"]),
        ("humaneval::greedy", 164, lambda r: r["canonical_solution"]),
        ("mbpp::greedy", 500, lambda r: f"```python\n{r['code']}\n```"),
    ],
)
def test_reference_answers_of_the_real_benchmarks_are_right(shared: Path, name: str, items: int, gold: Any) -> None:
    import pyarrow.parquet as pq

    task = find_task(name)
    found, _ = read_items(task, shared / "benchmarks")
    assert len(found) == items
    records = pq.read_table(shared / "benchmarks" / f"{task.file}.parquet").to_pylist()
    by_id = {str(r.get(task.id, i)): r for i, r in enumerate(records)}
    some = found[:: items // 4][:4]
    good = [[said(gold(by_id[item.id]))] for item in some]
    assert [a.values(task.metric) for a in evaluate.judge(some, good, {}, 1)] == [1.0] * 4
    wrong = [[said("I do not know.")] for _ in some]
    assert [a.values(task.metric) for a in evaluate.judge(some, wrong, {}, 1)] == [0.0] * 4


def test_ifeval_is_read_strictly_and_loosely(shared: Path) -> None:
    task = find_task("ifeval::tulu3")
    items, _ = read_items(task, shared / "benchmarks")
    lower = next(
        i for i in items if json.loads(i.checks["strict"]["ground_truth"])["instruction_id_list"] == ["change_case:english_lowercase"]
    )
    answered = evaluate.judge([lower], [[said("Sure, Here It Is:\nall of this is in small letters only.")]], {}, 1)
    assert answered[0].values("strict") == 0 and answered[0].values("loose") == 1
    scores = evaluate.summary(task, answered, None)["metrics"]
    assert scores["loose, each instruction"]["value"] == 1 and scores["strict, each instruction"]["value"] == 0


def test_pass_at_k_counts_answers_and_what_never_came_is_left_out() -> None:
    decoding = {"samples": 4, "temperature": 0.8}
    task = Task(name="t", prompt="{q}", verifier="exact", ground_truth="{a}", decoding=decoding, metric="pass@2", also=["pass@1"])
    check = {"id": "1", "prompt": [{"role": "user", "content": "?"}], "verifier": "exact", "ground_truth": "yes"}
    item = evaluate.Item("1", check["prompt"], {"": check})
    one = evaluate.judge([item], [[said("yes"), said("no"), said("no"), said("yes", "failed")]], {}, 1)[0]
    assert one.values("pass@1") == pytest.approx(1 / 3) and one.values("pass@2") == pytest.approx(2 / 3)
    nothing = evaluate.judge([item], [[said("", "failed")] * 4], {}, 1)[0]
    told = evaluate.summary(task, [one, nothing], None)
    assert math.isnan(nothing.values("pass@1")) and told["unanswered"] == 5 and told["metrics"]["pass@2"]["n"] == 1


@pytest.fixture(scope="module")
def result(sums: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eval") / "start"
    assert run("--task", sums / "prompts", "--model", start, "--out", out) == 0
    return out


def test_a_result_is_a_dataset_with_a_score_for_each_item(result: Path, sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, identity = read_scores(result)
    rows = [r for batch in read_batches(open_dataset(result)) for r in batch.to_pylist()]
    assert len(rows) == len(scores) == open_dataset(sums / "prompts").rows
    assert identity["scores"]["metrics"]["passed"]["value"] == pytest.approx(sum(scores.values()) / len(scores))
    assert rows[0]["candidates"][0]["ratings"][0]["rationale"]
    assert run("--task", sums / "prompts", "--model", sums / "start", "--out", result) == 0
    assert "up to date" in capsys.readouterr().err
    with pytest.raises(StoreError, match="another result"):
        run("--task", sums / "dev", "--model", sums / "start", "--out", result)


def test_two_models_are_compared_on_the_same_items_only(
    result: Path, sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--compare", result, result, "--json")
    assert json.loads(capsys.readouterr().out)["p"] == 1
    assert run("--band", result, result, result) == 0
    assert "(3 runs)" in capsys.readouterr().out
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nfile: q\nprompt: 'Say {q}'\nverifier: exact\nground_truth: '{q}'\ndecoding: {max_tokens: 3}\n")
    (tmp_path / "q.jsonl").write_text('{"q": "one"}\n{"q": "two"}\n')
    run("--task", mine, "--model", sums / "start", "--out", tmp_path / "other", "--data", tmp_path)
    with pytest.raises(ConfigError, match="not measured alike"):
        run("--compare", result, tmp_path / "other")


def test_answers_do_not_depend_on_what_else_is_in_the_batch(start: Path) -> None:
    from training.local_model import local_client

    requests = [
        Request("m", [{"role": "user", "content": f"{a}+{b}"}], {"temperature": 1.0, "max_tokens": 4, "seed": 1})
        for a in range(3)
        for b in range(3)
    ]

    async def answers(at_once: int, some: list[Request]) -> list[str]:
        async with local_client({"m": str(start)}, None, at_once) as client:
            return [r.content for r in await asyncio.gather(*(client.complete(r) for r in some))]

    together = asyncio.run(answers(16, requests))
    assert asyncio.run(answers(1, requests)) == together
    assert asyncio.run(answers(16, requests[::-1]))[::-1] == together
    assert len(set(together)) > 1


def test_samples_follow_the_models_distribution(start: Path) -> None:
    """Gumbel's trick samples: the shares of answers agree with the probabilities of their first tokens."""
    import torch

    from training.local_model import Local

    local = Local(str(start), at_once=512)
    messages = [{"role": "user", "content": "1+2"}]
    body = {"messages": messages, "temperature": 1.0, "max_tokens": 1, "seed": 5}
    found = [c["message"]["content"] for c in local._generate([(body, i) for i in range(512)])]
    ids = local.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        chances = local.model(ids).logits[0, -1].softmax(-1)
    for token in chances.topk(3).indices.tolist():
        share, chance = found.count(local.tokenizer.decode([token])) / 512, chances[token].item()
        assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / 512) + 0.005


def test_prompts_longer_than_the_context_are_told_not_scored(start: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nfile: q\nprompt: 'Say {q}'\nverifier: exact\nground_truth: '{q}'\ndecoding: {max_tokens: 3}\n")
    (tmp_path / "q.jsonl").write_text(json.dumps({"q": "word " * 3000}) + '\n{"q": "two"}\n')
    with pytest.raises(CaravanError, match=r"1 answers never came.*does not fit"):
        run("--task", mine, "--model", start, "--out", tmp_path / "out", "--data", tmp_path)
    assert read_scores(tmp_path / "out")[1]["scores"]["metrics"]["passed"]["n"] == 1


def test_scores_without_what_the_mix_held(dataset: Any, start: Path, tmp_path: Path) -> None:
    from decontam.rules import DecontamConfig
    from decontam.scan import scan_dataset

    questions = [
        "How many ships did the old keeper of the northern lighthouse count on Monday evening?",
        "A gardener plants seven rows of beans and loses two of them to frost; what remains in spring?",
        "If every tram in the city carries forty people, how large is the crowd of nine full trams?",
        "Which number of candles burns after a third of the eighteen lanterns has been blown out?",
    ]
    (tmp_path / "keeper.jsonl").write_text("".join(json.dumps({"question": q, "answer": str(i)}) + "\n" for i, q in enumerate(questions)))
    (tmp_path / "bench.yaml").write_text("benchmarks:\n  keeper: {source: keeper.jsonl, fields: [question]}\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: keeper::mine\nfile: keeper\nbenchmarks: [keeper]\nprompt: '{question}'\nverifier: gsm8k\n"
        "ground_truth: '{answer}'\ndecoding: {max_tokens: 3}\n"
    )
    rows = [
        {"kind": "sft", "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "3"}]}
        for q in (questions[1], "What is up?")
    ]
    mix = dataset(rows, name="mix")
    with pytest.raises(StoreError, match="not scanned for keeper"):
        evaluate.contaminated(mix.path, find_task(str(mine)))
    scan_dataset(mix, DecontamConfig.model_validate({"benchmarks": str(tmp_path / "bench.yaml")}))
    assert evaluate.contaminated(mix.path, find_task(str(mine))) == {"1"}
    run("--task", mine, "--model", start, "--out", tmp_path / "out", "--data", tmp_path, "--mix", mix.path)
    metrics = read_scores(tmp_path / "out")[1]["scores"]["metrics"]
    assert (metrics["passed"]["n"], metrics["passed (clean)"]["n"], metrics["passed (contaminated)"]["n"]) == (4, 3, 1)


def test_olmes_files(result: Path, tmp_path: Path) -> None:
    files = write_olmes(result, tmp_path)
    assert [f.name.split("-")[-1] for f in files] == ["metrics.json", "predictions.jsonl", "requests.jsonl"]
    metrics = json.loads(files[0].read_text())
    predictions = [json.loads(line) for line in files[1].read_text().splitlines()]
    assert metrics["num_instances"] == len(predictions)
    assert {(p["task_hash"], p["model_hash"]) for p in predictions} == {(metrics["task_hash"], metrics["model_hash"])}
    requests = [json.loads(line) for line in files[2].read_text().splitlines()]
    assert [r["native_id"] for r in requests] == [r["doc"]["native_id"] for r in requests] == [p["native_id"] for p in predictions]
    assert metrics["metrics"]["primary_score"] == pytest.approx(sum(p["metrics"]["passed"] for p in predictions) / len(predictions))


def test_missing_files_and_fields_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file gsm8k_test\.\*"):
        read_items(find_task("gsm8k::tulu3"), tmp_path)
    (tmp_path / "gsm8k_test.jsonl").write_text('{"query": "x", "answer": "1"}\n')
    with pytest.raises(InputError, match="no field 'question'"):
        read_items(find_task("gsm8k::tulu3"), tmp_path)
