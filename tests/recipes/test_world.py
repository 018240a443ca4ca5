"""The small world: its truth, its speakers and judges, and that they understand the rooms' own prompts over HTTP."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import fmean

import pytest

from generation import prompts, rubrics
from generation.models import ModelConfig
from recipes.rooms import RecipeConfig, Rooms
from recipes.world.data import comparisons, demonstrations, verify, write
from recipes.world.data import prompts as prompts_of
from recipes.world.exam import gain
from recipes.world.serve import dials, serving
from recipes.world.speakers import Critic, Speaker, answer, judge, say
from recipes.world.tasks import FAMILIES, PADDING, REFUSAL, compliance, grade, solve, tasks


def test_the_best_answer_is_worth_everything_and_no_other_is() -> None:
    rng = random.Random(0)
    for task in tasks(1, 400):
        assert solve(task.prompt) == task
        assert grade(task, task.answer).quality == 1.0
        assert grade(task, f"{PADDING[0]} {task.answer}").quality == pytest.approx(0.9)
        bad = answer(Speaker(skill=0, careless=1), task.prompt, rng)
        assert grade(task, bad).quality < 0.7, (task, bad)


def test_a_harmful_request_pulls_help_and_safety_apart() -> None:
    task = next(t for t in tasks(1, 400, ("harm",)))
    comply, decline = grade(task, compliance(task)), grade(task, REFUSAL)
    assert (comply.helpful, comply.safe, comply.quality) == (1.0, 0.0, 0.0)
    assert (decline.safe, decline.quality) == (1.0, 1.0) and decline.helpful < 0.3
    harmless = next(t for t in tasks(1, 400, ("how",)))
    assert grade(harmless, REFUSAL).quality < 0.3


@pytest.mark.parametrize("text", ["", " ", "red", "....", "\x00", "I will not", "7 7 7 7 " * 500])
def test_any_text_has_a_worth_between_nothing_and_everything(text: str) -> None:
    for task in tasks(2, 50):
        assert 0 <= grade(task, text).quality <= 1


def test_dials_turn_what_they_say() -> None:
    def quality(speaker: Speaker) -> float:
        return fmean(grade(t, answer(speaker, t.prompt, random.Random(t.prompt))).quality for t in tasks(3, 300))

    assert quality(Speaker()) == 1.0
    assert 1.0 > quality(Speaker(skill=0.7)) > quality(Speaker(skill=0.3))
    assert quality(Speaker(wordy=0.6)) < quality(Speaker(wordy=0.2))
    assert quality(Speaker(careless=1.0)) < 1.0
    assert quality(Speaker(timid=0.5)) < quality(Speaker(timid=0.1)) < 1.0
    assert quality(Speaker(skill=0.5, astray=1.0)) < 1.0


def test_an_answer_that_went_astray_is_well_made_and_beside_the_point() -> None:
    astray = Speaker(skill=0, careless=1, astray=1)
    for task in tasks(6, 100):
        said = answer(astray, task.prompt, random.Random(task.prompt))
        assert not grade(task, said).correct and said != compliance(task)
        assert any(said == compliance(other) for other in tasks(7, 600, (task.family,))) or task.family in ("say", "count", "sum")


def test_comparisons_on_the_same_request_are_of_other_answers() -> None:
    made = list(comparisons(3, 400, [Speaker(skill=0.5, wordy=0.6, families=["how"])], Critic(), "helpful"))
    pairs = {(row["prompt"], row["chosen"][1]["content"], row["rejected"][1]["content"]) for row in made}
    assert len({row["prompt"] for row in made}) <= 128 and len(made) == 400 and len(pairs) > 350


def test_a_judge_reads_every_rubric_and_tells_good_from_bad() -> None:
    task = next(tasks(5, 1, ("count",)))
    asked, good, bad = [{"role": "user", "content": task.prompt}], task.answer, "red."
    rng = random.Random(0)
    for aspect in rubrics.ASPECTS:
        said = json.loads(judge(Critic(), rubrics.ask_ratings(aspect, asked, [bad, good]).messages, rng) or "")
        low, high = said["answer_1"]["rating"], said["answer_2"]["rating"]
        assert rubrics.ASPECTS[aspect].low <= low <= high <= rubrics.ASPECTS[aspect].high
        assert low < high or aspect == "safety"
    assert json.loads(judge(Critic(), rubrics.ask_score(asked, good).messages, rng) or "")["score"] == 5
    assert json.loads(judge(Critic(), rubrics.ask_verdict("pairwise", asked, [bad, good]).messages, rng) or "")["verdict"] == "B"
    assert json.loads(judge(Critic(), rubrics.ask_verdict("pairwise", asked, [good, good]).messages, rng) or "")["verdict"] == "TIE"
    graded = json.loads(judge(Critic(), rubrics.ask_verdict("helpfulness", asked, [good, bad]).messages, rng) or "")["verdict"]
    assert graded == "A significantly better"
    assert judge(Critic(), asked, rng) is None


def test_a_biased_judge_is_biased_the_way_its_dial_says() -> None:
    task = next(tasks(5, 1, ("say",)))
    asked, padded = [{"role": "user", "content": task.prompt}], f"{PADDING[0]} {PADDING[1]} {task.answer}"
    question = rubrics.ask_ratings("overall", asked, [task.answer, padded]).messages
    fair = json.loads(judge(Critic(), question, random.Random(0)) or "")
    fond = json.loads(judge(Critic(length_bias=0.3, noise=0), question, random.Random(0)) or "")
    assert fair["answer_1"]["rating"] > fair["answer_2"]["rating"]
    assert fond["answer_2"]["rating"] >= fond["answer_1"]["rating"]


def test_a_speaker_understands_the_makers_prompts() -> None:
    rng, speaker = random.Random(0), Speaker()
    listed = say(speaker, prompts.NEW_TASKS.messages(count=2, wanted=8, first=3, last=10, examples="1. a\n2. b"), rng)
    assert [line.split(".")[0] for line in listed.splitlines()] == [str(n) for n in range(3, 11)]
    assert all(solve(line.split(". ", 1)[1]) for line in listed.splitlines())
    task = next(tasks(6, 1, ("repeat",)))
    assert say(speaker, prompts.REFINE.messages(request=task.prompt, answer="?"), rng) == task.prompt
    assert (
        json.loads(say(speaker, prompts.INSTANCES.messages(instruction=task.prompt, count=1), rng))["examples"][0]["output"] == task.answer
    )
    assert solve(say(speaker, prompts.GRADE_MATH.messages(persona="a baker"), rng)) is not None


def test_data_is_the_same_every_time_and_ordered_by_worth() -> None:
    speakers = [Speaker(skill=0.3, wordy=0.4), Speaker()]
    rows = list(comparisons(1, 100, speakers, Critic(), "quality"))
    assert rows == list(comparisons(1, 100, speakers, Critic(), "quality")) and len(rows) == 100
    for row in rows:
        chosen, rejected = (verify(row[side][-1]["content"], row["prompt"], "") for side in ("chosen", "rejected"))
        assert chosen >= rejected and row["strength"] in ("significantly", "better", "slightly", "negligibly")
        assert (chosen - rejected >= 0.6) == (row["strength"] == "significantly")
    shown = list(demonstrations(1, 80, Speaker()))
    assert len({r["messages"][0]["content"] for r in shown}) == 80 and {r["family"] for r in shown} == set(FAMILIES)


def test_a_gain_is_told_from_noise(tmp_path: Path) -> None:
    def sat(name: str, speaker: Speaker) -> Path:
        place = tmp_path / name
        with serving(dials({name: speaker.model_dump()})) as url:
            rooms = Rooms(RecipeConfig(models=[ModelConfig(name=name, base_url=url)]), tmp_path, tmp_path)
            rooms.generate("respond", {"prompts": str(asked), "models": rooms.models(name), "per_prompt": 1, "name": name}, place)
        return place

    write(asked := tmp_path / "asked.jsonl", prompts_of(7, 80))
    poor, good = sat("poor", Speaker(skill=0.3)), sat("good", Speaker(skill=0.95))
    better = gain(poor, good)
    assert better["higher"] == "yes" and better["requests"] == 80 and better["from"] > 0.2
    assert gain(good, poor)["higher"] == "no: lower" and gain(good, good)["higher"] == "within noise"
    assert gain(good, good, "safe")["difference"] == 0.0 < gain(good, good, "safe")["requests"] < 80


def test_the_world_answers_as_a_server_does(tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    def post(url: str, body: dict[str, object]) -> dict[str, object]:
        request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return dict(json.loads(reply.read()))

    with serving(dials({"teacher": {"skill": 0.5}, "judge": {"judge": {"noise": 0.1}}})) as url:
        body = {"model": "teacher", "messages": [{"role": "user", "content": "What is 3 plus 4?"}], "n": 5, "seed": 3}
        first, again = post(url, body), post(url, body)
        assert first == again and len({c["message"]["content"] for c in first["choices"]}) > 1  # type: ignore[attr-defined,index]
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(url, {**body, "model": "nobody"})
        assert refused.value.code == 404
