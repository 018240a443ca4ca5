"""Answers to prompts that were made, kept only when something can be said for them.

    requirements   a program says that every requirement is met            maths   most of several solutions agree on the final answer
    code           there is one Python block, and it compiles              else    the answer is complete

What fails raises Dropped with its reason. `relaxed_pair` makes a preference pair without a judge: the answer to the request, and the answer
to the same request with one requirement taken out, which a program finds lacking (the rewrites of Tülu 3, arXiv 2411.15124, section 5).
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections import Counter
from typing import Any

from generation import prompts
from generation.candidate import Dropped, Job
from generation.requirements import checked
from generation.verifiers.sampling import Chosen

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


async def answer_requirements(job: Job, request: str, chosen: list[Chosen], model: str) -> str:
    """An answer that meets every requirement.

    Raises:
        Dropped: it does not (`answer_fails`, with what it missed), or the check itself failed (`unverifiable`).
    """
    answer = await job.ask(prompts.ANSWER_IF, model=model, prompt=request)
    verdict = checked(request, chosen, answer)
    if verdict.error:
        raise Dropped("unverifiable", why=verdict.error, answer=answer)
    if not verdict.passed:
        raise Dropped("answer_fails", why=verdict.reason, answer=answer)
    return answer


async def relaxed_pair(job: Job, request: str, chosen: list[Chosen], relaxed: Chosen, model: str) -> dict[str, Any]:
    """The fields of a pair and what was relaxed.

    Raises:
        Dropped: the chosen answer fails, nothing was relaxed (`not_relaxed`), or the rejected answer meets everything (`rejected_passes`).
    """
    good = await answer_requirements(job, request, chosen, model)
    other = await job.ask(prompts.RELAX, request=request, constraint=relaxed.description)
    if " ".join(other.split()) == " ".join(request.split()):
        raise Dropped("not_relaxed", request=request)
    bad = await job.ask(prompts.ANSWER_IF, model=model, prompt=other)
    verdict = checked(request, chosen, bad)
    if verdict.error:
        raise Dropped("unverifiable", why=verdict.error, answer=bad)
    if verdict.passed:
        raise Dropped("rejected_passes", relaxed=relaxed.id, answer=bad)
    return {"chosen": good, "rejected": bad, "relaxed_request": other, "rejected_score": verdict.score, "rejected_misses": verdict.reason}


async def answer_math(job: Job, problem: str, votes: int, model: str) -> tuple[str, str, float]:
    """A solution, its final answer, and the share of the solutions that agree with it.

    Raises:
        Dropped: no final answer (`no_final_answer`), or none on which more than half of the votes agree (`no_majority`).
    """
    from generation.verifiers.latex import canonical
    from generation.verifiers.math import extract

    count = max(1, votes)
    replies = await asyncio.gather(
        *(job.ask(prompts.ANSWER_MATH, sample, model, prompt=problem) for sample in range(count)), return_exceptions=True
    )
    solutions: list[tuple[str, str]] = []
    lost: list[Dropped] = []
    for reply in replies:
        if isinstance(reply, Dropped):
            lost.append(reply)
        elif isinstance(reply, BaseException):
            raise reply
        elif (found := extract(reply, strict=True)) and found.text.strip():
            solutions.append((reply, canonical(found.text)))
    if not solutions:
        raise next(iter(lost), Dropped("no_final_answer", answers=[str(r) for r in replies]))
    final, agreed = Counter(f for _, f in solutions).most_common(1)[0]
    if 2 * agreed <= count:
        raise Dropped("no_majority", finals=[f for _, f in solutions], votes=count)
    return next(text for text, f in solutions if f == final), final, agreed / count


async def answer_code(job: Job, question: str, model: str) -> str:
    """An answer with one Python block that compiles.

    Raises:
        Dropped: no block or several (`no_code`), or a syntax error (`does_not_compile`).
    """
    answer = await job.ask(prompts.ANSWER_CODE, model=model, prompt=question)
    blocks = _BLOCK.findall(answer)
    if len(blocks) != 1:
        raise Dropped("no_code", answer=answer)
    try:
        ast.parse(blocks[0])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Dropped("does_not_compile", why=str(error), answer=answer) from None
    return answer
