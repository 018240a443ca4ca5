"""What is suspicious about a set of preference pairs: each lint a sentence, a count, and the condition that leads to its rows.

    lints = lints_for(columns)                       # columns: what the view `rows` has; a lint without its columns is left out
    sql = counts_sql([one for one in lints if not one.reads_text], "rows")

The conditions are SQL over `rows`. Those that read the texts say so: on millions of rows they take seconds, the others milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

CHARS_PER_TOKEN = 4  # the estimate that the whole project uses where there is no tokenizer
BIASED = 0.1  # a share this far from one half is called a bias, when there are rows enough to tell


@dataclass(frozen=True)
class Lint:
    """One suspicion.

    Attributes:
        key: its name in the URL.
        says: what it means for training, in a sentence.
        where: the condition; true for the rows it is about.
        of: the condition for the rows it can be asked of, "true" for every pair.
        bias: being near one half is what is wanted; otherwise nought.
    """

    key: str
    title: str
    says: str
    where: str
    of: str = "true"
    bias: bool = False
    reads_text: bool = False


def said(side: str) -> str:
    """The text of a pair's side, as SQL."""
    return f"array_to_string(list_transform({side}, lambda m: coalesce(m.content, '')), chr(10))"


def lints_for(columns: Collection[str], tokens: int = 512, text: str = "text") -> list[Lint]:
    """The lints that can be asked of a view with these columns.

    Args:
        tokens: the length a trainer cuts at, for pairs that are the same up to there.
        text: what the view of row files is called.
    """
    measured = {"response_chars", "rejected_chars", "prompt_chars"} <= set(columns)
    chosen, rejected = lengths(columns)
    scored = "chosen_score IS NOT NULL AND rejected_score IS NOT NULL"
    both, prompt = f"({chosen}) > 0 AND ({rejected}) > 0", _prompt_chars(columns)
    place = "TRY_CAST(meta ->> '$.{side}_place' AS INTEGER)"
    first, second = place.format(side="chosen"), place.format(side="rejected")
    left = f"greatest(0, {CHARS_PER_TOKEN * tokens} - {prompt})"
    found = [
        Lint(
            "longer",
            "chosen is longer",
            "Near 50 % is good. Far above, the model learns to write more; the interval says whether it could be chance.",
            f"{chosen} > {rejected}",
            f"{chosen} <> {rejected}",
            bias=True,
            reads_text=not measured,
        ),
        Lint(
            "twice",
            "chosen at least twice as long",
            "The strongest length signals: does the length help, or is it padding?",
            f"{chosen} >= 2 * {rejected}",
            both,
            reads_text=not measured,
        ),
        Lint(
            "half",
            "chosen at most half as long",
            "Short and chosen: a good, terse answer, or a rejected one that was merely different?",
            f"{rejected} >= 2 * {chosen}",
            both,
            reads_text=not measured,
        ),
    ]
    if "same_answers" in columns:
        found.append(Lint("same", "equal texts", "Both answers say the same: there is nothing to prefer.", "same_answers"))
    else:
        found.append(
            Lint(
                "same",
                "equal texts",
                "Both answers say the same: there is nothing to prefer.",
                f"trim({said('chosen')}) = trim({said('rejected')})",
                reads_text=True,
            )
        )
    found.append(
        Lint(
            "same_head",
            f"the same in the first {tokens:,} tokens",
            f"A trainer that cuts at {tokens:,} tokens (prompt included, {CHARS_PER_TOKEN} characters a token) sees no difference.",
            f"least({chosen}, {rejected}) >= {left} AND left({said('chosen')}, {left}) = left({said('rejected')}, {left})"
            f" AND {said('chosen')} <> {said('rejected')}",
            reads_text=True,
        )
    )
    if {"chosen_score", "rejected_score"} <= set(columns):
        found += [
            Lint(
                "tie",
                "ties",
                "Both answers have one score: which is chosen was a matter of chance.",
                "chosen_score = rejected_score",
                scored,
            ),
            Lint(
                "inverted",
                "chosen scored below rejected",
                "The scores contradict the choice: the label or the score is wrong.",
                "chosen_score < rejected_score",
                scored,
            ),
            Lint("unscored", "without scores", "No margin can be computed.", f"NOT ({scored})"),
        ]
    if "meta" in columns:
        found.append(
            Lint(
                "earlier",
                "the answer that came first is chosen",
                "Near 50 % is good. Far from it, the place among the candidates decided.",
                f"{first} < {second}",
                f"{first} IS NOT NULL AND {second} IS NOT NULL AND {first} <> {second}",
                bias=True,
            )
        )
    signs = {
        "refusal": ("the chosen answer declines", "Right for harmful requests; for harmless ones it teaches to refuse."),
        "truncated": ("the chosen answer stops in mid-sentence", "It teaches to stop anywhere."),
        "repetition": ("the chosen answer repeats itself", "A loop of the model that wrote it."),
        "empty": ("an empty answer", "One side says nothing."),
    }
    for name, (title, says) in signs.items():
        if name in columns:
            found.append(Lint(name, title, says, "repetition > 0.3" if name == "repetition" else name))
    contradicted = f"""id IN (
        WITH many AS (SELECT prompt_hash FROM {text} WHERE kind = 'pair' GROUP BY 1 HAVING count(*) > 1),
          sides AS (SELECT id, prompt_hash, md5({said("chosen")}) AS yes, md5({said("rejected")}) AS no
                    FROM {text} WHERE kind = 'pair' AND prompt_hash IN (FROM many))
        SELECT x.id FROM sides AS x SEMI JOIN sides AS y
        ON x.prompt_hash = y.prompt_hash AND x.id <> y.id AND (x.yes = y.no OR x.no = y.yes))"""
    found.append(
        Lint(
            "contradicted",
            "chosen here, rejected there",
            "Another pair with the same prompt prefers the other way round, or ranks the same answers in a chain.",
            contradicted,
            reads_text=True,
        )
    )
    return found


def lengths(columns: Collection[str]) -> tuple[str, str]:
    """The characters of the chosen and of the rejected answer, as SQL: measured ones where there are."""
    if {"response_chars", "rejected_chars"} <= set(columns):
        return "response_chars::BIGINT", "rejected_chars::BIGINT"
    return f"length({said('chosen')})", f"length({said('rejected')})"


def _prompt_chars(columns: Collection[str]) -> str:
    return "prompt_chars::BIGINT" if "prompt_chars" in columns else f"length({said('prompt')})"


def counts_sql(lints: Sequence[Lint], rows: str, where: str = "true") -> str:
    """One query for all of them: columns KEY and KEY_of, and `pairs`; one line."""
    parts = ["count(*) AS pairs"]
    for lint in lints:
        parts.append(f"count(*) FILTER (({lint.of}) AND ({lint.where})) AS {lint.key}")
        parts.append(f"count(*) FILTER ({lint.of}) AS {lint.key}_of")
    return f"SELECT {', '.join(parts)} FROM {rows} WHERE kind = 'pair' AND ({where})"


def length_effect_sql(columns: Collection[str], rows: str, where: str = "true") -> str:
    """How much longer chosen answers are: the ratio of typical lengths, and Cohen's d of the paired differences."""
    chosen, rejected = lengths(columns)
    return f"""SELECT exp(avg(ln({chosen} + 1) - ln({rejected} + 1))) AS ratio,
          avg({chosen} - {rejected}) / nullif(stddev_samp({chosen} - {rejected}), 0) AS cohens_d
        FROM {rows} WHERE kind = 'pair' AND ({where})"""


@dataclass(frozen=True)
class Finding:
    """A lint and what was counted."""

    lint: Lint
    count: int
    of: int

    @property
    def share(self) -> float | None:
        """From 0 to 1; None when it could be asked of no row."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the share (E. B. Wilson, 1927)."""
        if not self.of:
            return None
        n, p, z = self.of, self.count / self.of, 1.96
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def wrong(self) -> bool:
        """Worth a look: any row for a defect; for a bias, a share away from one half by more than chance."""
        if not self.lint.bias:
            return self.count > 0
        low, high = self.interval or (0.5, 0.5)
        return low > 0.5 + BIASED or high < 0.5 - BIASED


def findings(lints: Sequence[Lint], counted: dict[str, Any]) -> list[Finding]:
    """The lints with the numbers of `counts_sql`'s one line."""
    return [Finding(lint, int(counted[lint.key] or 0), int(counted[f"{lint.key}_of"] or 0)) for lint in lints]
