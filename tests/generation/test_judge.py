"""Every kind of judge: what it asks, what it keeps, what it does with a reply that cannot be read."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import httpx2
import pyarrow.parquet as pq
import pytest
import yaml

from columnar import store
from columnar.errors import CaravanError
from columnar.record import rehash, schema_of, to_batch
from generation import judge as judging
from generation import rubrics
from generation.client import Client
from generation.judge import Case, JudgeConfig, Readable, judge
from generation.models import ModelConfig
from generation.scores import of_judge


def rules(**more: object) -> JudgeConfig:
    return JudgeConfig(**{"model": "j", **more})  # type: ignore[arg-type]


def case(n: int = 4, row: str = "r", **more: object) -> Case:
    return Case(row, [{"role": "user", "content": "the question"}], [f"this is answer text {i}" for i in range(n)], **more)  # type: ignore[arg-type]


def judged(url_or_handler, config: JudgeConfig, of: Case, structured: bool = True) -> list[judging.Judgement]:
    return judged_all(url_or_handler, config, [of], structured)[0]


def judged_all(url_or_handler, config: JudgeConfig, cases: list[Case], structured: bool = True) -> list[list[judging.Judgement]]:
    async def go() -> list[list[judging.Judgement]]:
        transport = None
        url = url_or_handler
        if callable(url_or_handler):
            url, transport = "http://mock/v1", httpx2.AsyncClient(transport=httpx2.MockTransport(url_or_handler))
        async with Client([ModelConfig(name="j", base_url=url, structured=structured)], http_client=transport) as client:
            return [await judge(client, config, of, Readable()) for of in cases]

    return asyncio.run(go())


def replying(*texts: str):
    """A server that says these texts, one after the other, and the bodies it was sent."""
    bodies: list[dict] = []

    async def handler(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content))
        text = texts[min(len(bodies), len(texts)) - 1]
        return httpx2.Response(200, json={"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})

    return handler, bodies


@pytest.mark.parametrize(
    ("more", "calls", "lines"),
    [
        ({"mode": "aspects"}, 4, 16),
        ({"mode": "aspects", "aspects": ["helpfulness"], "samples": 3}, 3, 12),
        ({"mode": "overall"}, 1, 4),
        ({"mode": "reference"}, 1, 4),
        ({"mode": "additive", "samples": 3}, 4, 12),
        ({"mode": "pairwise"}, 12, 12),
        ({"mode": "pairwise", "swap": False}, 6, 6),
        ({"mode": "strength"}, 24, 24),
    ],
)
def test_each_mode_asks_as_often_as_documented_and_keeps_everything(serve, more, calls, lines):
    server = serve()
    found = judged(server.url, rules(**more), case(reference="the right answer"))
    assert (server.fake.calls["ok"], len(found)) == (calls, lines)
    assert all(j.outcome == "ok" and j.raw and j.rationale for j in found)
    mode = str(more["mode"])
    scores = of_judge(mode, [(j.aspect, j.candidate, j.other, j.rating) for j in found], 4)
    assert all(s is not None for s in scores)
    if mode == "pairwise":
        assert sum(s for s in scores if s is not None) == pytest.approx(2.0)
    if mode == "strength":
        assert {j.aspect for j in found} == {"helpfulness", "safety"} and sum(s for s in scores if s is not None) == pytest.approx(0.0)


def test_answers_are_labelled_one_to_n_and_ratings_follow_the_shuffle():
    """Defect a: inputs labelled 2 to 5 while the output asks for 1 to 4."""

    async def by_length(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        user = body["messages"][1]["content"]
        found = {i: user.split(f"<answer {i}>\n")[1].split(f"\n</answer {i}>")[0] for i in range(1, 5)}
        assert "<answer 5>" not in user and body["messages"][0]["content"].count("answer_1") == 1
        said = {f"answer_{i}": {"rationale": text, "rating": int(text[-1]) + 1} for i, text in found.items()}
        return httpx2.Response(200, json={"choices": [{"message": {"content": json.dumps(said)}, "finish_reason": "stop"}]})

    for row in map(str, range(5)):
        found = judged(by_length, rules(), case(row=row))
        assert all(j.rating == j.candidate + 1 and j.rationale.endswith(str(j.candidate)) for j in found)


def test_the_order_differs_between_aspects_and_prompts_is_even_and_recorded(serve):
    """Defect k: one order for all aspects."""
    server = serve()
    orders: Counter[tuple[int, int]] = Counter()
    for found in judged_all(server.url, rules(), [case(row=str(row)) for row in range(100)]):
        by_aspect = {a: tuple(j.position for j in found if j.aspect == a) for a in judging.ULTRAFEEDBACK}
        orders.update((candidate, position) for order in by_aspect.values() for candidate, position in enumerate(order))
    assert len(set(by_aspect.values())) > 1
    assert all(60 < n < 140 for n in orders.values()), orders


def test_the_rubric_comes_first_so_that_it_is_a_shared_prefix():
    one = rubrics.ask_ratings("honesty", case(row="x").conversation, ["a", "b"])
    two = rubrics.ask_ratings("honesty", [{"role": "user", "content": "another"}], ["c", "d"])
    assert one.messages[0] == two.messages[0] and "another" in two.messages[1]["content"]
    several = [{"role": r, "content": r.upper()} for r in ("system", "user", "assistant", "user")]
    assert all(text in rubrics.ask_score(several, "x").messages[1]["content"] for text in ("SYSTEM", "ASSISTANT"))


def test_an_unreadable_reply_is_asked_for_once_more_with_the_reason():
    good = json.dumps({f"answer_{i}": {"rationale": "r", "rating": 3} for i in (1, 2)})
    handler, bodies = replying("Both are fine.", good)
    found = judged(handler, rules(mode="overall"), case(2), structured=False)
    assert [j.outcome for j in found] == ["ok", "ok"] and all(j.repaired and "no JSON" in j.problem for j in found)
    assert (
        "no JSON object in the reply" in bodies[1]["messages"][-1]["content"] and bodies[1]["messages"][-2]["content"] == "Both are fine."
    )
    assert "response_format" not in bodies[0]


def test_what_stays_unreadable_is_missing_with_its_raw_reply():
    """Defect c: an unparsable block becomes a rating of 1; here a shifted, short or absurd list becomes nothing at all."""
    for bad in ("I cannot judge this.", '{"answer_1": {"rating": 5}}', '{"answer_1": {"rating": 9}, "answer_2": {"rating": 0}}'):
        handler, bodies = replying(bad)
        found = judged(handler, rules(aspects=["helpfulness"]), case(2))
        assert len(bodies) == 2 and [(j.rating, j.outcome, j.raw) for j in found] == [(None, "unparsable", bad)] * 2


def test_not_applicable_is_kept_as_such_where_it_is_defined_and_unreadable_elsewhere():
    said = json.dumps({"answer_1": {"rationale": "fiction", "rating": "N/A"}, "answer_2": {"rationale": "r", "rating": 4}})
    honest = judged(replying(said)[0], rules(aspects=["honesty"]), case(2))
    assert sorted((j.rating or 0, j.verdict, j.outcome) for j in honest if j.verdict) == [(0, "N/A", "ok")]
    assert {j.outcome for j in judged(replying(said)[0], rules(aspects=["helpfulness"]), case(2))} == {"unparsable"}


def test_too_many_unreadable_judgements_stop_the_run_and_say_so(tmp_path, serve, capsys):
    server = serve()
    source = candidates(tmp_path / "candidates", 80)
    config = {
        "candidates": str(source),
        "models": [{"name": "j", "base_url": server.url, "structured": False}],
        "judge": {"mode": "pairwise", "model": "j"},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))  # the fake server answers pairwise questions with ratings: nothing can be read
    assert judging.main([str(path), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "50 of 50 judgements cannot be read (limit max_unparsable: 0.05)" in told and not (tmp_path / "out" / "manifest.json").exists()


def candidates(directory: Path, n: int, meta: dict | None = None, texts: tuple[str, ...] = ("one text", "another text")) -> Path:
    rows = []
    for i in range(n):
        answers = [
            {"model": m, "content": t, "finish_reason": "stop", "params": '{"outcome": "ok"}', "ratings": []}
            for m, t in zip("ab", texts, strict=True)
        ]
        row = {
            "id": f"{i:016x}", "kind": "candidates", "source": "s", "origin": {"uri": "u", "row": i}, "candidates": answers,
            "prompt": [{"role": "user", "content": f"q {i}"}], "meta": json.dumps(meta) if meta else None,
        }  # fmt: skip
        rows.append(rehash(row))
    writer = store.RowWriter(directory, schema_of(["candidates"]))
    writer.write(to_batch(rows, writer.schema))
    writer.close()
    identity = {
        "name": "c",
        "kind": "candidates",
        "stage": {"name": "respond"},
        "rows": n,
        "rows_sha256": writer.content.hexdigest(),
        "counts": {},
    }
    store.write_manifest(directory, identity, 0.0)
    return directory


def run_judge(tmp_path: Path, judge_config: object, source: Path, **more: object) -> list[dict]:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"candidates": str(source), "judge": judge_config, **more}))
    assert judging.main([str(path), "--out", str(tmp_path / "out")]) == 0
    return [row for batch in store.read_batches(store.open_dataset(tmp_path / "out")) for row in batch.to_pylist()]


def test_verifiers_judge_without_a_server(tmp_path):
    source = candidates(tmp_path / "in", 3, {"verifier": "gsm8k", "ground_truth": "18"}, ("So it is 18.", "So it is 17."))
    for row in run_judge(tmp_path, {"mode": "verifier"}, source):
        assert [c["score"] for c in row["candidates"]] == [1.0, 0.0]
    told = pq.read_table(tmp_path / "out" / "hits" / "judgements.parquet").to_pylist()
    assert [j["verdict"] for j in told[:2]] == ["pass", "fail"]


def test_several_judges_the_first_one_gives_the_score(tmp_path, serve):
    source = candidates(tmp_path / "in", 3, {"verifier": "exact", "ground_truth": "one text"})
    judges = [{"mode": "overall", "model": "j"}, {"mode": "verifier", "name": "exact"}, {"mode": "aspects", "model": "j", "name": "second"}]
    rows = run_judge(tmp_path, judges, source, models=[{"name": "j", "base_url": serve().url}])
    ratings = {r["aspect"]: r["rating"] for r in rows[0]["candidates"][0]["ratings"]}
    assert set(ratings) == {"overall", "exact", "second", *(f"second/{a}" for a in judging.ULTRAFEEDBACK)}
    assert rows[0]["candidates"][0]["score"] == ratings["overall"] and ratings["exact"] == 1.0
    assert ratings["second"] == pytest.approx(sum(v for k, v in ratings.items() if "/" in k) / 4)


def test_a_reward_model_judges_and_is_not_run_twice(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from vllm_server import tiny_model

    from generation import judge_local

    torch.set_num_threads(1)
    tiny_model(tmp_path / "lm", 512)
    reward = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "lm", num_labels=1)
    reward.save_pretrained(tmp_path / "rm")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "lm").save_pretrained(tmp_path / "rm")
    source = candidates(tmp_path / "in", 5)
    config = {"mode": "reward", "model": str(tmp_path / "rm"), "batch": 3}
    rows = run_judge(tmp_path, config, source)
    scores = [c["score"] for r in rows for c in r["candidates"]]
    assert len(set(scores)) > 5
    alone = judge_local.reward_scores(str(tmp_path / "rm"), [[*rows[0]["prompt"], {"role": "assistant", "content": "one text"}]])
    assert alone[0] == pytest.approx(scores[0], abs=1e-5), "the batch changes the score"
    judge_local._load.cache_clear()
    (tmp_path / "rm" / "model.safetensors").rename(tmp_path / "gone")
    before = judge_local._weights_of(str(tmp_path / "rm"))
    (tmp_path / "gone").rename(tmp_path / "rm" / "model.safetensors")
    assert before != judge_local._weights_of(str(tmp_path / "rm"))
    path = tmp_path / "c.yaml"
    judge_local._load.cache_clear()
    assert judging.main([str(path), "--out", str(tmp_path / "out"), "--force"]) == 0
    assert judge_local._load.cache_info().currsize == 0, "the scores were in the cache"


def test_reading_every_outcome_of_a_judge_as_a_loss(serve):
    server = serve(shares={"poison": 1.0})

    async def go() -> list:
        async with Client([ModelConfig(name="j", base_url=server.url)]) as client:
            row = {"id": "r", "prompt": case().conversation, "candidates": [{"content": t} for t in case().answers], "meta": None}
            return list(await judging.judge_row(client, [rules()], row, 0, Readable()))

    judgements, lost = asyncio.run(go())
    assert (
        len(judgements) == 16 and len(lost) == 4 and {x.outcome for x in lost} == {"failed"} and all(j.rating is None for j in judgements)
    )


def test_the_threshold_counts_only_what_was_answered():
    readable = Readable()
    for _ in range(60):
        readable.note(rules(), "")
    for _ in range(3):
        readable.note(rules(), "bad")
    with pytest.raises(CaravanError, match="4 of 64 judgements cannot be read"):
        readable.note(rules(), "bad")
