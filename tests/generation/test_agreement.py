"""Judges against people: checkable baselines on the real sets, judges over real HTTP, every recorded judge reply read."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest
import yaml
from fault_server import Faults, Running
from hypothesis import given
from hypothesis import strategies as st
from scripted import serve

from columnar import store
from columnar.cli import parser, run
from columnar.errors import InputError
from columnar.load import load_source
from generation import parse
from generation.agreement import baseline, main
from generation.gold import Item, read_gold
from generation.measure import Judgement, annotator_agreement, figures
from generation.statistics import bootstrap


def value(items, name: str, figure: str) -> float:
    return figures(baseline(name, items, 1), draws=50)[figure].value


# accuracy of judging by length alone; PandaLM's and Auto-J's over the pairs that people tell apart
@pytest.mark.parametrize(
    ("file", "n", "longest", "unique"),
    [
        ("llmbar", 419, 114 / 419, 116 / 419),
        ("human_judgments_mtbench_faireval", 266, 177.5 / 266, 190 / 266),
        ("pandalm_testset", 894, 0.674, 0.702),
        ("autoj_pairwise_test", 1019, 0.716, 0.746),
    ],
)
def test_judging_by_length(shared, file, n, longest, unique) -> None:
    items = read_gold(shared / f"preferences/{file}.parquet")
    assert sum(i.decided for i in items) == n
    assert value(items, "longest", "accuracy") == pytest.approx(longest, abs=5e-4)
    assert value(items, "unique_tokens", "accuracy") == pytest.approx(unique, abs=5e-4)
    assert value(items, "shortest", "accuracy") == pytest.approx(1 - longest, abs=5e-4)
    assert value(items, "random", "accuracy") == pytest.approx(0.5, abs=0.08)
    assert value(items, "longest", "longer") == 1.0 and value(items, "longest", "when_shorter") == 0.0


def test_the_adversarial_sets_are_built_against_length(shared) -> None:
    """LLMBar (Zeng et al. 2023): the longer answer is the worse one in the adversarial subsets, not in the natural one."""
    items = read_gold(shared / "preferences/llmbar.parquet")
    for subset, low, high in (("Natural", 0.5, 0.62), ("Adversarial/Neighbor", 0.08, 0.16), ("Adversarial/GPTInst", 0.08, 0.18)):
        part = [i for i in items if i.subset == subset]
        assert low < value(part, "longest", "accuracy") < high


def test_a_judge_that_always_says_the_first(shared) -> None:
    result = figures(baseline("first", read_gold(shared / "preferences/llmbar.parquet"), 1))
    assert (result["accuracy"].value, result["first"].value, result["flips"].value, result["kappa"].value) == (0.5, 1.0, 1.0, 0.0)


def test_three_annotators(shared) -> None:
    """PandaLM: each annotator beside the others is the ceiling for a judge."""
    items = read_gold(shared / "preferences/pandalm_testset.parquet")
    assert all(i.human is not None for i in items) and sum(len(set(i.annotators)) == 1 for i in items) == 879
    lines = annotator_agreement(baseline("longest", items, 1))
    assert [round(line["other_people_kappa"], 2) for line in lines] == [0.87, 0.86, 0.87]
    assert all(line["other_people_agreement"] > 0.9 > line["judge_agreement"] for line in lines)
    perfect = annotator_agreement([Judgement(i, i.annotators[0]) for i in items])
    assert perfect[0]["judge_agreement"] == 1.0 and perfect[1]["judge_agreement"] < 1.0


def test_rankings(shared) -> None:
    """Open Assistant rankings: the five figures of Self-Rewarding."""
    items = read_gold(shared / "preferences/oasst1_ranked_zh.parquet")
    assert {2, 3, 4, 5} < {len(i.answers) for i in items} and any(i.human[0] != max(i.human) for i in items)
    result = figures(baseline("longest", items, 1), draws=50)
    assert result["accuracy"].value == pytest.approx(0.758, abs=5e-4)
    assert result["spearman"].value == pytest.approx(0.566, abs=5e-4) and result["kendall"].value == pytest.approx(0.526, abs=5e-4)
    stars = figures([Judgement(i, tuple(5.0 if h == max(i.human) else 3.0 for h in i.human)) for i in items], draws=50)
    assert stars["five_best"].value == 1.0 and stars["accuracy"].value > 0.8


def test_figures_on_a_case_by_hand() -> None:
    a = Item("a", "p", ("long answer", "short"), (1.0, 0.0))
    b = Item("b", "p", ("x", "yy"), (0.5, 0.5))
    c = Item("c", "p", ("one", "three", "fifteen"), (3.0, 2.0, 1.0))
    result = figures(
        [
            Judgement(a, (0.0, 1.0), (0.0, 1.0), False),
            Judgement(b, (0.5, 0.5), (1.0, 1.0), True),
            Judgement(c, (5.0, 4.0, 4.0)),
            Judgement(a, None),
        ]
    )
    assert result["accuracy"].value == pytest.approx((0 + 1 + 1 + 0.5) / 4)  # a wrong; c: two right, one tie
    assert result["exact"].value == pytest.approx(1 / 3)
    assert result["missing"].value == 0.25 and result["five_best"].value == 1.0
    assert result["flips"].value == 0.5 and result["first"].value == pytest.approx(0.75)
    assert result["longer"].value == 0.0 and result["humans_longer"].value == pytest.approx(1 / 4)
    assert result["when_longer"].value == 0.0 and result["when_shorter"].value == pytest.approx(2.5 / 3)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40), st.integers(0, 5))
def test_intervals_hold_the_mean_and_depend_on_the_seed_alone(values, seed) -> None:
    one, two = bootstrap(values, seed, "x", 200), bootstrap(values, seed, "x", 200)
    assert one == two and min(values) <= one.low <= one.high <= max(values)
    assert one.value == pytest.approx(sum(values) / len(values))


def write_config(tmp_path, data, judges, server=None, **more):
    config = {"data": data, "judges": judges, "draws": 100, **more}
    if server:
        config["models"] = [{"name": "judge", "model": "tiny", "base_url": server.url, "retries": 1}]
    (tmp_path / "agreement.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return tmp_path / "agreement.yaml"


def command(path, *flags) -> int:
    made = parser("generation.agreement", "")
    for name in ("config", "--out"):
        made.add_argument(name, **({} if name == "config" else {"type": type(path)}))
    made.add_argument("--set", action="append", default=[], dest="settings")
    made.add_argument("--dry-run", action="store_true")
    made.add_argument("--max-cost", type=float)
    return run(main, made, [str(path), *map(str, flags)])


def test_a_judge_over_http(shared, tmp_path, capsys) -> None:
    """A judge that knows the labels but picks the first place in one pair of ten and is unreadable in another."""
    items = read_gold(shared / "preferences/llmbar.parquet", 60)
    better = {i.answers[0 if i.human[0] else 1] for i in items}

    def judge(body, prompt: str) -> str:
        first, second = re.search(r"<answer 1>\n(.*)\n</answer 1>\n\n<answer 2>\n(.*)\n</answer 2>", prompt, re.DOTALL).groups()
        number = next(n for n, i in enumerate(items) if {first, second} == set(i.answers))
        if number % 10 == 3:
            return "I would say the first is somewhat nicer."
        verdict = "A" if number % 10 == 7 or first in better else "B"
        return json.dumps({"rationale": "because", "verdict": verdict})

    with serve(judge) as server:
        data = [{"name": "llmbar", "path": str(shared / "preferences/llmbar.parquet"), "limit": 60}]
        path = write_config(tmp_path, data, [{"name": "gpt", "mode": "pairwise", "model": "judge"}], server, baselines=["longest"])
        assert command(path, "--out", tmp_path / "out", "--json") == 0
        calls = server.fake.calls["all"]
        assert calls == 120 + 12  # an unreadable reply is asked for once more
        assert command(path, "--out", tmp_path / "out", "--json") == 0
        assert server.fake.calls["all"] == calls  # everything answered from the cache
    result = json.loads((tmp_path / "out/agreement.json").read_text())
    line = next(x for x in result["figures"] if x["judge"] == "gpt" and x["data"] == "llmbar")
    assert line["missing"]["value"] == 0.1
    assert line["accuracy"]["value"] == pytest.approx((48 + 6 * 0.5) / 54)
    assert line["flips"]["value"] == pytest.approx(6 / 54)
    unread = [json.loads(x) for x in (tmp_path / "out/unread.jsonl").open()]
    assert len(unread) == result["unread"] == 12 and all(u["outcome"] == "unparsable" and u["reply"] for u in unread)
    kept = [json.loads(x) for x in (tmp_path / "out/judgements.jsonl").open()]
    assert len(kept) == 120  # every item of both judges
    assert "12 replies gave no verdict" in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "samples", "calls"), [("additive", 2, 20), ("overall", 1, 10), ("aspects", 1, 40), ("strength", 1, 40)])
def test_every_mode_of_judging(shared, tmp_path, mode, samples, calls) -> None:
    """The server obeys each judge's schema at random: every reply is read, and the figures are those of chance."""
    server = Running(Faults())
    try:
        data = [{"name": "d", "path": str(shared / "preferences/llmbar.parquet"), "limit": 10}]
        path = write_config(tmp_path, data, [{"name": "j", "mode": mode, "model": "judge", "samples": samples}], server)
        assert command(path, "--out", tmp_path / "out") == 0
        assert server.fake.calls["all"] == calls
        assert command(path, "--dry-run") == 0
    finally:
        server.close()
    kept = [json.loads(x) for x in (tmp_path / "out/judgements.jsonl").open()]
    assert len(kept) == 10 and all(len(k["scores"]) == 2 for k in kept)
    assert {len(k["shown"]) for k in kept} == {{"additive": 0, "overall": 1, "aspects": 4, "strength": 2}[mode]}


def test_pairs_of_a_dataset_directory_do_not_reward_a_place(tmp_path) -> None:
    lines = [{"prompt": f"p{i}", "chosen": f"good answer number {i}", "rejected": "bad"} for i in range(100)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    from columnar.files import SourceSpec

    load_source(SourceSpec(name="pairs", path=str(tmp_path / "pairs.jsonl")), tmp_path / "pairs")
    assert store.open_dataset(tmp_path / "pairs").rows == 100
    items = read_gold(tmp_path / "pairs")
    assert 30 < sum(i.human == (1.0, 0.0) for i in items) < 70
    assert value(items, "longest", "accuracy") == 1.0


def test_a_dry_run_counts_the_calls(shared, tmp_path, capsys) -> None:
    data = [{"path": str(shared / "preferences/llmbar.parquet")}]
    with serve(lambda body, prompt: "") as server:
        assert (
            command(write_config(tmp_path, data, [{"name": "j", "mode": "pairwise", "model": "judge"}], server), "--dry-run", "--json") == 0
        )
        assert server.fake.calls["all"] == 0
    assert json.loads(capsys.readouterr().out)[0]["calls"] == 838


@pytest.mark.parametrize(
    ("judges", "said"),
    [
        ([{"name": "j", "model": "nobody"}], "no model is called 'nobody'"),
        ([{"name": "j"}], "model: missing"),
        ([], "judges: empty"),
        ([{"mode": "verifier"}], "ground truth"),
    ],
)
def test_bad_configs(tmp_path, capsys, judges, said) -> None:
    assert command(write_config(tmp_path, [{"path": "x"}], judges)) == 2
    assert said in capsys.readouterr().err


def test_files_that_hold_no_judgements(shared, tmp_path) -> None:
    with pytest.raises(InputError, match="no form of human judgements"):
        read_gold(shared / "personas/persona_hub_tool_5k.parquet")
    (tmp_path / "bad.jsonl").write_text('{"input": "p", "output_1": "a", "output_2": "b", "label": 3}\n')
    with pytest.raises(InputError, match="label 3"):
        read_gold(tmp_path / "bad.jsonl")


# Recorded replies of real judges: every one must be read, and mean what its own project read in it.


def test_recorded_rankings_are_read(shared) -> None:
    """AlpacaEval's chain-of-thought judge: 1,610 records; where the judge answered, the ranks give the recorded preference."""
    table = pq.read_table(shared / "completions/alpaca_eval_judge_cot.parquet").to_pylist()
    replies = [r for r in table if r["raw_completion"] is not None]
    assert len(table) == 1610 and len(replies) > 1590
    for r in replies:
        models = {"m": "output_1", **json.loads(r["referenced_models"])}  # one record names only M
        ranks = parse.ranking(r["raw_completion"], ("m", "M"))
        best = min(ranks, key=ranks.__getitem__)
        assert r["preference"] == (1.0 if models[best] == "output_1" else 2.0)


@pytest.mark.parametrize(("file", "n"), [("just_eval_safety_ratings", 3000), ("just_eval_multi_aspect_gpt35", 800)])
def test_recorded_ratings_are_read(shared, file, n) -> None:
    table = pq.read_table(shared / f"preferences/{file}.parquet", columns=["result", "parsed_result"]).to_pylist()
    assert len(table) == n
    for r in table:
        rated = parse.aspects(r["result"], 1, 5, may_be_missing=True)
        recorded = json.loads(r["parsed_result"])
        assert {k: v.rating for k, v in rated.items() if v.rating} == {
            k: float(v["score"]) for k, v in recorded.items() if str(v["score"]).isdigit()
        }
