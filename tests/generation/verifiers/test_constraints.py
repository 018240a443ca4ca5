"""Every constraint: thousands of drawn cases that must pass and must fail, and every hack that we know of, both ways."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest

from columnar.errors import ConfigError
from generation.verifiers import check_rows, ifeval, verify
from generation.verifiers.conflicts import conflict
from generation.verifiers.constraints import CONSTRAINTS, Context, plain
from generation.verifiers.sampling import ground_truth, sample_constraints, witness

SEEDS = 60  # times 66 kinds: about four thousand cases each way


def test_groups() -> None:
    assert Counter(c.group for c in CONSTRAINTS.values()) == {"ifeval": 25, "train": 29, "test": 12}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_drawn_made_and_spoilt(name: str) -> None:
    kind = CONSTRAINTS[name]
    for seed in range(SEEDS):
        rng = random.Random(f"{name}{seed}")
        context = Context()
        params = kind.draw(rng, context)
        assert "{" not in kind.describe(params, rng)
        assert json.loads(json.dumps(params)) == params
        good = kind.make(plain(rng), params, rng, context.prompt)
        assert kind.follows(good, params, context.prompt) == 1, (seed, params, good)
        bad = kind.spoil(good, params, rng, context.prompt)
        assert kind.follows(bad, params, context.prompt) < 1, (seed, params, bad)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_several_phrasings_and_a_seeded_draw(name: str) -> None:
    kind = CONSTRAINTS[name]
    assert len(set(kind.phrases)) >= 2
    assert kind.draw(random.Random(5), Context()) == kind.draw(random.Random(5), Context())


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("text", ["", " \n\t", "******", "[][][]", "<<>>", "- \n- \n", "\u200b\u200b", "<!-- all of it -->", "!!! ???"])
def test_nothing_meets_nothing(name: str, text: str) -> None:
    kind = CONSTRAINTS[name]
    assert kind.follows(text, kind.draw(random.Random(1), Context())) == 0


# id, parameters, text
HACKS: list[tuple[str, dict[str, Any], str]] = [
    ("detectable_format:number_highlighted_sections", {"num_highlights": 3}, "Words ******"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 3}, "*a* *b* *c*"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*same thing* and *same thing*"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "* one item\n* two item\n* three item"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "2 * 3 * 4 is a product"),
    ("detectable_format:title", {}, "<<>> words"),
    ("detectable_format:title", {}, "<< >> words"),
    ("detectable_format:title", {}, "<<3+4=7>> is a sum"),
    ("detectable_format:title", {}, "<<a\nb title>> words"),
    ("detectable_content:number_placeholders", {"num_placeholders": 3}, "Dear [][][] you"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] and [name]"),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[link text](http://a.b) here"),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "- [ ] a task\n- [x] done"),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "as shown before [1] and [23]"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "Above\n---\nbelow"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "**Title**\ntext"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* "),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two\n* three"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "```\n- in code\n```\ntext"),
    ("combination:two_responses", {}, "hi******"),
    ("combination:two_responses", {}, "hi there******Hi there!"),
    ("combination:two_responses", {}, "one answer here\n*******\nanother answer"),
    ("combination:two_responses", {}, "one\n******\ntwo\n******\nthree"),
    ("startend:quotation", {}, '"'),
    ("startend:quotation", {}, '"a" and "b"'),
    ("startend:quotation", {}, 'She said "hello"'),
    ("startend:quotation", {}, '""'),
    ("change_case:english_capital", {}, "1234"),
    ("change_case:english_capital", {}, "THE CAT SLEEPS and wakes"),
    ("change_case:english_lowercase", {}, "1234"),
    ("change_case:english_lowercase", {}, "the cat Sleeps"),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 3}, "I A I A I a"),
    ("keywords:existence", {"keywords": ["cat"]}, "a whole category of things"),
    ("keywords:existence", {"keywords": ["cat"]}, "Nothing here. <!-- cat -->"),
    ("keywords:existence", {"keywords": ["cat"]}, "my cat_dog variable"),
    ("keywords:existence", {"keywords": ["cat", "dog"]}, "only the cat"),
    ("keywords:forbidden_words", {"forbidden_words": ["he"]}, "Then he left"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a c\u200bat in the house"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a cаt in Cyrillic disguise"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a ｃａｔ in wide letters"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a cat-like CAT"),
    ("keywords:frequency", {"keyword": "ice cream", "frequency": 2, "relation": "at least"}, "one ice cream only"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "the cat in its category"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "P.S. comes first.\n\nThen much.\n\nAnd more.\n\nAnd more still."),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Words and words.\n\nP.S."),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "There is a P.S. here in the line"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Words.\n\nP.S. not that one"),
    ("startend:end_checker", {"end_phrase": "That is all."}, "That is all. Or is it?"),
    ("startend:end_checker", {"end_phrase": "all"}, "We saw the wall"),
    ("detectable_format:json_format", {}, '"just a string"'),
    ("detectable_format:json_format", {}, "5"),
    ("detectable_format:json_format", {}, "{}"),
    ("detectable_format:json_format", {}, '{"a": NaN}'),
    ("detectable_format:json_format", {}, 'Sure! {"a": 1}'),
    ("detectable_format:json_format", {}, "[" * 100_000 + "1" + "]" * 100_000),
    ("detectable_format:constrained_response", {}, "My answer is yes. My answer is no. My answer is maybe."),
    ("detectable_format:constrained_response", {}, "yes"),
    ("detectable_format:constrained_response", {"options": ["A", "B"]}, "Apple"),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 3}, "Section 1\nSection 2\nSection 3\n"),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}, "Section 1 one\nSection 1 two"),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}, "In Section 1 and Section 2 we said so"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hello."}, "Say hello."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hello."}, "Hello. Say hello. Hello."),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, "One. ! ! ! ? ?"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "Dr. Smith met Mr. J. Brown at 3.5 p.m. today"),
    ("length_constraints:number_words", {"num_words": 5, "relation": "at least"}, "a . . . . . . - - -"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, "one part\n***\n***\ntwo"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "he"}, "hello there"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 5, "first_word": "he"}, "he\n\nhe"),
    ("punctuation:no_comma", {}, "one，two"),
    ("punctuation:punctuation_exclamation", {}, "Stop！"),
    ("punctuation:punctuation_dot", {}, "It costs 3.50"),
    ("language:response_language", {"language": "de"}, "The cat sleeps on the chair by the window. " * 3 + "Danke."),
    ("language:response_language", {"language": "fr"}, "12345"),
    ("keywords:palindrome", {}, "aaaaaa is here, and so is eye"),
    ("keywords:start_end", {}, "word"),
    ("keywords:start_end", {}, "Word by word."),
    ("copy:copy", {"prompt_to_repeat": "Say hello."}, "Sure! Say hello."),
    ("copy:repeat_phrase", {"phrase": "a b c d e", "small_n": 2}, "a b c d e. a b x d e."),
    ("detectable_format:square_brackets", {}, "[several words] [here]"),
    ("detectable_format:bigram_wrapping", {}, "<<one two>> three <<four>>"),
    ("last_word:last_word_answer", {"last_word": "all"}, "We saw the wall."),
    ("count:count_unique", {}, "The cat and the dog"),
    ("lists:numbered", {"n": 3}, "1. \n2. \n3. "),
    ("format:table", {"rows": 1, "columns": 2}, "| a | b |\n|---|---|\n| | |"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*the cat* and *the  cat!*"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "```\n*bold code*\n```\ntext"),
    ("detectable_format:title", {}, "```cpp\ncout <<endl>> x\n```"),
    ("detectable_format:title", {}, "<<title>>\nText."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] [name!]"),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "x = data[index]"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "- one\n- one"),
    ("startend:quotation", {}, '""a""'),
    ("change_case:english_lowercase", {}, "the cat is 𝐇𝐄𝐑𝐄 today"),
    ("keywords:existence", {"keywords": ["cat"]}, '<span style="display:none">cat</span> text'),
    ("keywords:existence", {"keywords": ["cat"]}, "text\n[//]: # (cat)"),
    ("keywords:existence", {"keywords": ["cat"]}, '<img alt="cat"> text'),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a c-a-t walks"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a c a t walks"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a c<b></b>at walks"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a c&#97;t walks"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a c\ufe0fat walks"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a ᴄat walks"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "my cat_dog"),
    ("keywords:letter_frequency", {"letter": "a", "let_frequency": 2, "let_relation": "less than"}, "áàâ ａａ words"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Words.\n\nP.S. P.S. P.S."),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "P.S. no text before it"),
    ("detectable_format:constrained_response", {}, "My answer is yes or no"),
    ("detectable_format:constrained_response", {}, "I will not say: My answer is yes."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hello."}, "Say hello. Say hello."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hello"}, "Say helloworld"),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}, "It was one.Then came two.Then came three."),
    ("length_constraints:number_words", {"num_words": 5, "relation": "less than"}, "one,two,three,four,five,six"),
    ("length_constraints:number_words", {"num_words": 5, "relation": "less than"}, "one_two_three_four_five_six"),
    ("length_constraints:number_words", {"num_words": 5, "relation": "less than"}, "one-two-three-four-five-six"),
    ("length_constraints:number_words", {"num_words": 5, "relation": "less than"}, "one\u2800two\u2800three\u2800four\u2800five"),
    ("length_constraints:number_words", {"num_words": 5, "relation": "less than"}, "one&nbsp;two&nbsp;three&nbsp;four&nbsp;five"),
    ("punctuation:no_comma", {}, "one٫ two"),
    ("punctuation:no_comma", {}, "one&#44; two"),
    ("punctuation:punctuation_exclamation", {}, "Stop⁉"),
    ("punctuation:punctuation_dot", {}, "Stop․"),
    (
        "language:response_language",
        {"language": "de"},
        "Die Katze schläft auf dem Stuhl neben dem Fenster und träumt. The cat is dreaming of a large fish in the river.",
    ),
    ("detectable_format:square_brackets", {}, "[one,two,three] [x]"),
    ("detectable_format:bigram_wrapping", {}, "<<one,two three,four>>"),
    ("lists:numbered", {"n": 3}, "1. a\n2. a\n3. a"),
    ("format:headings", {"n": 2}, "```\n# comment\n# other\n```\ntext"),
    ("format:table", {"rows": 2, "columns": 2}, "| a | b |\n|---|---|\n| c | d |\ntext between\n| e | f |"),
    ("letters:lipogram", {"letter": "e"}, "thе cаt in Cyrillic е"),
    ("words:alliteration", {"n": 3}, "the the the"),
    ("lines:acrostic", {"word": "HOPE"}, "H\nO\nP\nE"),
]
HONEST: list[tuple[str, dict[str, Any], str]] = [
    ("detectable_format:number_highlighted_sections", {"num_highlights": 3}, "*one part*, **another part** and ***a third***."),
    ("detectable_format:title", {}, "# <<A day at sea>>\nText."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [recipient name], meet me in [city]."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}, "Points:\n- one\n  - nested\n* two\n\n---\n**Bold end**"),
    ("combination:two_responses", {}, "The first thing is tea.\n\n******\n\nOr take a long walk instead."),
    ("startend:quotation", {}, ' "All of it, even a \n"quoted" word." \n'),
    ("startend:quotation", {}, "“All of it.”"),
    ("change_case:english_capital", {}, "THE CAT SLEEPS ON 2 CHAIRS!"),
    ("change_case:english_lowercase", {}, "the cat sleeps on 2 chairs!"),
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 2}, "I saw NASA and a dog"),
    ("keywords:existence", {"keywords": ["cat", "ice cream"]}, "**Cat's** favourite: ice\ncream."),
    ("keywords:forbidden_words", {"forbidden_words": ["he", "cat"]}, "The category of them there."),
    ("keywords:frequency", {"keyword": "ice cream", "frequency": 2, "relation": "at least"}, "Ice cream! More ice cream."),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "#one #two"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Words.\n\n**P.S.** do not forget the milk"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Words.\nP.S. one\nP.P.S. and two"),
    ("startend:end_checker", {"end_phrase": "That is all."}, "Words. That is all.\n\n"),
    ("startend:end_checker", {"end_phrase": "That is all."}, '"Words. **That is all.**"'),
    ("detectable_format:json_format", {}, '```json\n{"a": [1, 2]}\n```\n'),
    ("detectable_format:json_format", {}, ' [1, "two"] '),
    ("detectable_format:constrained_response", {}, "My answer is no. The reason is the weather."),
    ("detectable_format:constrained_response", {"options": ["A", "B"]}, "B"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "**SECTION 1:** words\n\n## Section 2\nmore words",
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say  hello."}, '"Say hello."\n\nHello!'),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, "Dr. Who ran! Did he? He did."),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 4, "relation": "less than"},
        "At 3.5 p.m. we met Mr. J. Brown. He said no. Then he left.",
    ),
    ("length_constraints:number_words", {"num_words": 5, "relation": "at least"}, "Don't use well-known short words"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\none part\n* * *\ntwo\n***"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "it"},
        'First.\n\n\n"It" is second.',
    ),
    ("punctuation:no_comma", {}, "one; two"),
    ("language:response_language", {"language": "de"}, "Die Katze schläft auf dem Stuhl neben dem Fenster."),
    ("language:response_language", {"language": "zh"}, "猫睡在窗边的椅子上。今天天气很好，我们去公园散步。"),
    ("keywords:palindrome", {}, "Her Kayak was red."),
    ("keywords:start_end", {}, "Word by word"),
    ("copy:repeat_phrase", {"phrase": "a b c d e", "small_n": 2}, "a b c x e. a b x d e."),
    ("detectable_format:bigram_wrapping", {}, "<<one two>> <<three four>> <<five>>"),
    ("count:count_unique", {}, "The cat saw no dog"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "The category is <b>fine</b> &amp; concatenated."),
    ("keywords:existence", {"keywords": ["cat"]}, "a <b>cat</b>&nbsp;sleeps"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "state-of-the-art things"),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        "See www.example.com and version 2.0 of node.js today.",
    ),
    ("detectable_format:json_format", {}, '{"a": "&quot;x&quot; &#34;"}'),
    ("detectable_format:title", {}, "Text first.\n<<A day at sea>>"),
    ("detectable_format:constrained_response", {}, "My answer is yes, and I am sure."),
    ("emoji:count", {"n": 1}, "👨\u200d👩\u200d👧 family"),
    ("emoji:count", {"n": 1}, "👍🏽 ok"),
    ("emoji:count", {"n": 1}, "🇩🇪 ok"),
    (
        "language:response_language",
        {"language": "de"},
        "Die Katze heißt Tom Sawyer. Sie schläft im New York Hilton Midtown auf einem Stuhl.",
    ),
]


@pytest.mark.parametrize(("name", "params", "text"), HACKS)
def test_hacks_fail(name: str, params: dict[str, Any], text: str) -> None:
    assert CONSTRAINTS[name].follows(text, params, "") < 1


@pytest.mark.parametrize(("name", "params", "text"), HONEST)
def test_honest_answers_pass(name: str, params: dict[str, Any], text: str) -> None:
    assert CONSTRAINTS[name].follows(text, params, "") == 1


def test_every_pair_outside_the_conflict_table_has_a_text_that_meets_both() -> None:
    def found(a: str, b: str) -> bool:
        for seed in range(60):
            rng, context = random.Random(f"{a}{b}{seed}"), Context()
            if witness([(name, CONSTRAINTS[name].draw(rng, context)) for name in (a, b)], rng, context.prompt) is not None:
                return True
        return False

    assert [(a, b) for a, b in itertools.combinations(CONSTRAINTS, 2) if not conflict(a, b) and not found(a, b)] == []


def test_sampled_sets_hold_together() -> None:
    for seed in range(150):
        for n in (1, 3, 5):
            chosen = sample_constraints(n, seed, prompt="Describe a harbour in winter.")
            assert len({c.id for c in chosen}) == n
            assert not any(conflict(a.id, b.id) for a, b in itertools.combinations(chosen, 2))
            assert chosen == sample_constraints(n, seed, prompt="Describe a harbour in winter.")
            text = witness([(c.id, c.params) for c in chosen], random.Random(0), "Describe a harbour in winter.")
            if text is not None:
                row = {
                    "verifier": "ifeval",
                    "ground_truth": ground_truth(chosen),
                    "prompt": [{"role": "user", "content": "Describe a harbour in winter."}],
                }
                assert verify(row, text).passed


def test_the_test_group_is_drawn_only_when_asked_for() -> None:
    assert not [c for seed in range(200) for c in sample_constraints(3, seed) if CONSTRAINTS[c.id].group == "test"]
    assert {CONSTRAINTS[c.id].group for seed in range(20) for c in sample_constraints(2, seed, ["test"])} == {"test"}
    with pytest.raises(ConfigError):
        sample_constraints(2, 0, ["held-out"])
    with pytest.raises(ConfigError, match="hold together"):
        sample_constraints(40, 0, ["ifeval"])


def test_partial_credit_and_each_constraint_kept() -> None:
    truth = {"instruction_id_list": ["punctuation:no_comma", "detectable_format:title"], "kwargs": [{}, {"unused": None}]}
    verdict = verify({"verifier": "ifeval", "ground_truth": json.dumps(truth)}, "No title here")
    assert verdict.score == 0.5 and not verdict.passed
    assert [(c.name, c.passed) for c in verdict.parts[0].checks] == [("punctuation:no_comma", True), ("detectable_format:title", False)]


def test_loose_mode_is_ifevals() -> None:
    row = {"instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]}
    said = "Sure, here it is:\nthe cat sleeps on the chair"
    assert not verify({"verifier": "ifeval", "ground_truth": json.dumps(row)}, said).passed
    assert verify({"verifier": "ifeval", "ground_truth": json.dumps({**row, "mode": "loose"})}, said).passed


def test_unknown_constraints_and_bad_parameters() -> None:
    bad_name = {"verifier": "ifeval", "ground_truth": json.dumps({"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]})}
    with pytest.raises(ConfigError, match="no_comma"):
        check_rows([bad_name])
    for kwargs in ({"num_words": 3}, {"num_words": 2.5, "relation": "at least"}, {"num_words": 3, "relation": "at least", "x": 1}):
        truth = {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [kwargs]}
        assert verify({"verifier": "ifeval", "ground_truth": json.dumps(truth)}, "a b c").error
    truth = {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 3, "relation": "roughly"}]}
    assert "roughly" in verify({"verifier": "ifeval", "ground_truth": json.dumps(truth)}, "a b c").error


def test_all_ifeval_prompts_are_known_and_answers_are_scored(shared) -> None:
    rows = pq.read_table(shared / "benchmarks" / "ifeval.parquet").to_pylist()
    asked = [{"instruction_id_list": row["instruction_id_list"], "kwargs": json.loads(row["kwargs"])} for row in rows]
    assert sum(len(ifeval.parse(truth)) for truth in asked) == 834
    texts = [r["output"] for r in pq.read_table(shared / "completions" / "alpaca_eval_outputs.parquet").to_pylist() if r["output"].strip()]
    for i, (row, truth) in enumerate(zip(rows, asked, strict=True)):
        one = {"verifier": "ifeval", "ground_truth": json.dumps(truth), "prompt": [{"role": "user", "content": row["prompt"]}]}
        strict = verify(one, texts[i * 20])
        loose = verify({**one, "ground_truth": json.dumps({**truth, "mode": "loose"})}, texts[i * 20])
        assert not strict.error and 0 <= strict.score <= loose.score <= 1
