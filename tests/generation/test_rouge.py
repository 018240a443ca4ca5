"""The pruned ROUGE-L filter decides exactly as a plain scan over the whole pool."""

import re

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from generation.rouge import RougePool, tokens_of


def plain_rouge(a: str, b: str) -> float:
    """ROUGE-L by its definition (Lin 2004): the whole table, precision and recall, then F."""
    x, y = re.findall("[a-z0-9]+", a.lower()), re.findall("[a-z0-9]+", b.lower())
    if not x or not y:
        return 0.0
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, s in enumerate(x):
        for j, t in enumerate(y):
            table[i + 1][j + 1] = table[i][j] + 1 if s == t else max(table[i][j + 1], table[i + 1][j])
    precision, recall = table[-1][-1] / len(y), table[-1][-1] / len(x)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def plain_scan(texts: list[str], threshold: float) -> list[bool]:
    """Accept or not, in order, against everything accepted before."""
    pool: list[str] = []
    accepted = []
    for text in texts:
        accepted.append(all(plain_rouge(text, other) <= threshold for other in pool))
        if accepted[-1]:
            pool.append(text)
    return accepted


sentence = st.lists(st.sampled_from(["write", "a", "the", "poem", "about", "rain", "sun", "list", "of", "three", "x"]), max_size=12).map(
    " ".join
)


@settings(max_examples=150, deadline=None)
@given(st.lists(sentence, max_size=12), st.sampled_from([0.3, 0.5, 0.7, 0.9]))
@example(["a b c d e f g x y z", "a b c d e f g p q r"], 0.7)  # L = 7 of 10: F is 0.7 up to rounding, which must decide as the scan does
@example(["a " * 7 + "b " * 3, "a " * 7 + "c " * 3, "a"], 0.7)
@example(["", "", "!?"], 0.7)
def test_decides_as_the_plain_scan(texts: list[str], threshold: float) -> None:
    pool = RougePool(threshold=threshold)
    assert [pool.accept(text) is None for text in texts] == plain_scan(texts, threshold)


@pytest.mark.parametrize("total", range(2, 60))
def test_scores_at_the_threshold_round_as_published(total: int) -> None:
    """2 L / (m + n) can be 0.7 exactly or one bit beside it, depending on m and n: the same side every time."""
    for n in range(1, total):
        m = total - n
        for common in range(1, min(m, n) + 1):
            if abs(2 * common / total - 0.7) < 0.02:
                a = " ".join(["k"] * common + [f"a{i}" for i in range(m - common)])
                b = " ".join(["k"] * common + [f"b{i}" for i in range(n - common)])
                assert (RougePool([a]).nearest(b) is not None) == (plain_rouge(a, b) > 0.7), (m, n, common)


@settings(max_examples=100, deadline=None)
@given(st.lists(sentence, min_size=1, max_size=10), sentence)
def test_names_the_most_similar(texts: list[str], text: str) -> None:
    match = RougePool(texts, threshold=0.4).nearest(text)
    scores = [plain_rouge(text, other) for other in texts]
    if max(scores) > 0.4:
        assert match is not None and match.score == max(scores) and match.row == scores.index(max(scores))
    else:
        assert match is None


def test_real_instructions(shared) -> None:
    texts = pq.read_table(shared / "instructions/dolly_15k.parquet", columns=["instruction"])["instruction"].to_pylist()
    texts = [text for text in texts if text.startswith("What") and len(text) < 60][:500]
    pool = RougePool()
    decided = [pool.accept(text) is None for text in texts]
    assert decided == plain_scan(texts, 0.7)
    assert 50 < decided.count(False) < 450


def test_alpaca_has_passed_this_filter(shared) -> None:
    """Alpaca was made with the published scan at 0.7 (17,309 of its 52,002 rows are here): not one may be rejected."""
    texts = pq.read_table(shared / "instructions/alpaca_17k.parquet", columns=["instruction"])["instruction"].to_pylist()
    pool = RougePool()
    assert [text for text in dict.fromkeys(texts) if pool.accept(text)] == []


def test_case_does_not_hide_a_copy() -> None:
    assert RougePool(["Explain SQL joins to Anna"]).nearest("explain sql JOINS to anna") is not None


def test_other_scripts_need_the_wider_tokens() -> None:
    """The published tokeniser has no tokens for Chinese: a copy passes it. `any` sees it."""
    text = "请写一首关于春天的诗"
    assert RougePool([text]).nearest(text) is None
    assert RougePool([text], scripts="any").nearest(text).score == 1.0
    assert tokens_of("Café 東京 x_y", "any") == ["café", "東", "京", "x", "y"]


def test_a_pool_grows_past_its_first_arrays() -> None:
    pool = RougePool()
    for i in range(2000):
        assert pool.accept(f"w{i} " * 5) is None
    assert len(pool) == 2000 and pool.nearest("w1999 " * 5).row == 1999
