"""The verifiers measured: agreement with labelled answers, reference solutions, mutants, and checks per second.

    python -m bench.verifiers --data ../shared/data --json verifiers.json        (some minutes; --quick samples: one minute)
    python -m bench.verifiers --only gsm8k math constraints                      (without the programs)

Rates are per core, in CPU time of this process; the code verifier's is wall-clock, because its work is done by others.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from columnar.cli import table
from generation.verifiers import code, ifeval, verify
from generation.verifiers import math as maths
from generation.verifiers.conflicts import conflict
from generation.verifiers.constraints import CONSTRAINTS
from generation.verifiers.sampling import sample_constraints

Line = dict[str, Any]


def line(what: str, n: int, good: int, rate: float | None = None, note: str = "") -> Line:
    return {
        "what": what,
        "n": n,
        "good": good,
        "share": good / n if n else None,
        "per second": round(rate, 1 if rate < 100 else 0) if rate else None,
        "note": note,
    }


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return function(), time.process_time() - start


def gsm8k(data: Path, step: int) -> Iterator[Line]:
    rows = pq.read_table(data / "completions/gsm8k_model_solutions.parquet").to_pylist()[::step]
    sides = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    cases = [({"verifier": "gsm8k", "ground_truth": r["ground_truth"]}, r[s]["solution"], r[s]["is_correct"]) for r in rows for s in sides]
    found, seconds = timed(lambda: [verify(row, said).passed == label for row, said, label in cases])
    yield line("GSM8K model solutions: agrees with the label", len(cases), sum(found), len(cases) / seconds)
    for name, gold in (("choice", "B"), ("exact", "18"), ("f1", "18")):
        row = {"verifier": name, "ground_truth": gold}
        found, seconds = timed(partial(lambda row: [not verify(row, said).error for _, said, _ in cases], row))
        yield line(f"  the same texts through {name}: a verdict", len(cases), sum(found), len(cases) / seconds)


def respelled(answer: str) -> Iterator[str]:
    yield answer.replace("\\frac", "\\dfrac").replace("+", " + ")
    yield f"\\left({answer[1:-1]}\\right)" if answer.startswith("(") and answer.endswith(")") else f"{answer}."
    yield f"x = {answer}" if not set(answer) & set("=,<>{") else f" {answer} "
    yield f"{answer}.00" if answer.isdigit() else answer.replace("\\text", "\\textbf")


def math_answers(data: Path, step: int) -> Iterator[Line]:
    rows = pq.read_table(data / "benchmarks/math_test.parquet").to_pylist()[::step]
    golds = [maths.gold_answer(row["solution"]) for row in rows]
    own, seconds = timed(lambda: [maths.verify(r["solution"], {"answer": r["solution"]}).passed for r in rows])
    yield line("MATH: reference solution against its own answer", len(own), sum(own), len(own) / seconds)
    texts = [(text, gold) for gold in golds for text in respelled(gold)]
    spelled, seconds = timed(lambda: [maths.equal(text, gold) for text, gold in texts])
    yield line("MATH: the answer in four other spellings", len(spelled), sum(good for good, _ in spelled), len(spelled) / seconds)
    rng = random.Random(0)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < 1000:
        i, j = rng.sample(range(len(rows)), 2)
        if maths.canonical(golds[i]) != maths.canonical(golds[j]):
            pairs.append((i, j))
    wrong, seconds = timed(lambda: [not maths.verify(rows[i]["solution"], {"answer": golds[j]}).passed for i, j in pairs])
    yield line("MATH: another problem's solution fails", len(wrong), sum(wrong), len(wrong) / seconds, "sympy decides most")


def constraints(data: Path, step: int) -> Iterator[Line]:
    rows = pq.read_table(data / "benchmarks/ifeval.parquet").to_pylist()
    truths = [{"instruction_id_list": r["instruction_id_list"], "kwargs": json.loads(r["kwargs"])} for r in rows]
    pairs = [pair for truth in truths for pair in ifeval.parse(truth)]
    yield line(
        "IFEval: constraints known, parameters accepted", sum(len(t["instruction_id_list"]) for t in truths), len(pairs), note="541 prompts"
    )
    texts = [r["output"] for r in pq.read_table(data / "completions/alpaca_eval_outputs.parquet").to_pylist() if r["output"].strip()][
        :: 40 * step
    ]
    cases = [(kind, params, text) for i, text in enumerate(texts) for kind, params in pairs[i % 5 :: 5]]
    found, seconds = timed(lambda: [kind.follows(text, params, "") for kind, params, text in cases])
    yield line(
        "IFEval constraints on answers of 15 models (met)", len(cases), sum(s >= 1 for s in found), len(cases) / seconds, "IFEval's mix"
    )
    drawn = [(CONSTRAINTS[c.id], c.params) for seed in range(200) for c in sample_constraints(3, seed, ["ifeval", "train", "test"])]
    cases = [(kind, params, text) for i, text in enumerate(texts) for kind, params in drawn[i % 5 :: 5]]
    found, seconds = timed(lambda: [kind.follows(text, params, "") for kind, params, text in cases])
    yield line("all 66 kinds on the same answers (met)", len(cases), sum(s >= 1 for s in found), len(cases) / seconds, "as sampled")
    sets, seconds = timed(lambda: [sample_constraints(3, f"s{seed}") for seed in range(2000 // step)])
    yield line("sets of 3 drawn, each with its witness", len(sets), len(sets), len(sets) / seconds)
    one = {"verifier": "ifeval", "ground_truth": json.dumps(truths[0]), "prompt": [{"role": "user", "content": ""}]}
    found, seconds = timed(lambda: [verify(one, text).score for text in texts * 3])
    yield line("verify() with one row of constraints", len(found), sum(s >= 1 for s in found), len(found) / seconds)


def humaneval(row: dict[str, Any]) -> dict[str, Any]:
    return {"form": "humaneval", "prompt": row["prompt"], "entry_point": row["entry_point"], "test": row["test"], "seconds": 100}


def mbpp(row: dict[str, Any]) -> dict[str, Any]:
    return {"form": "mbpp", "tests": [*row["test_list"], *row["challenge_test_list"]], "setup": row["test_setup_code"], "seconds": 60}


def judged(cases: list[tuple[str, dict[str, Any]]], threads: int) -> tuple[list[bool], float]:
    start = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda case: code.verify(*case).passed, cases))
    return found, time.monotonic() - start


def programs(data: Path, step: int, threads: int) -> Iterator[Line]:
    plain = pq.read_table(data / "benchmarks/humaneval.parquet").to_pylist()[::step]
    plus = pq.read_table(data / "benchmarks/humanevalplus.parquet").to_pylist()[::step]
    basic = pq.read_table(data / "benchmarks/mbpp.parquet").to_pylist()[::step]
    sets = [
        ("HumanEval", [(r["task_id"], r["canonical_solution"], humaneval(r)) for r in plain]),
        ("HumanEval+", [(r["task_id"], r["canonical_solution"], humaneval(r)) for r in plus]),
        ("MBPP", [(str(r["task_id"]), r["code"], mbpp(r)) for r in basic]),
    ]
    for name, cases in sets:
        found, seconds = judged([(solution, truth) for _, solution, truth in cases], threads)
        missed = [case[0] for case, good in zip(cases, found, strict=True) if not good]
        yield line(
            f"{name}: canonical solutions pass", len(found), sum(found), len(found) / seconds, "not: " + ", ".join(missed) if missed else ""
        )
    gutted = [("    return None\n", humaneval(r)) for r in plain] + [(hollow(r["code"]), mbpp(r)) for r in basic]
    found, seconds = judged(gutted, threads)
    yield line("the same with every function returning None fail", len(found), len(found) - sum(found), len(found) / seconds)
    mutants = [(row, made) for row in plain if (made := mutant(row)) is not None]
    found, seconds = judged([(made, {**humaneval(row), "seconds": 10}) for row, made in mutants], threads)
    expected = [bare(made + "\n" + row["test"] + f"\ncheck({row['entry_point']})\n") for row, made in mutants]
    yield line(
        "HumanEval with one operator changed fail",
        len(found),
        len(found) - sum(found),
        len(found) / seconds,
        "the others are equivalent or untested",
    )
    agree = sum(a == b for a, b in zip(found, expected, strict=True))
    yield line("  and agree with running them unprotected", len(found), agree)


def hollow(source: str) -> str:
    """The program with every function returning None."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = ast.parse("return None").body
    return ast.unparse(tree)


SWAPS: dict[Any, Any] = {
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}


class Change(ast.NodeTransformer):
    """The n-th comparison, sum or whole number of a program changed; others left."""

    def __init__(self, n: int) -> None:
        self.left = n

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        operator = node.ops[0] if isinstance(node, ast.Compare) else node.op if isinstance(node, ast.BinOp) else None
        if type(operator) in SWAPS:
            self.left -= 1
            if self.left == 0:
                changed: Any = SWAPS[type(operator)]()
                if isinstance(node, ast.Compare):
                    node.ops[0] = changed
                elif isinstance(node, ast.BinOp):
                    node.op = changed
        return node


def mutant(row: dict[str, Any]) -> str | None:
    """The whole canonical program with one operator changed; None when it has none to change."""
    source = row["prompt"] + row["canonical_solution"]
    tree = Change(1 + len(row["task_id"]) % 2).visit(ast.parse(source))
    made = ast.unparse(ast.fix_missing_locations(tree))
    return made if made != ast.unparse(ast.parse(source)) else None


def bare(source: str) -> bool:
    """Does the program end well when it is simply run? (Only for the benchmark's own programs.)"""
    try:
        return subprocess.run([sys.executable, "-I", "-c", source], capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    made.add_argument("--quick", action="store_true", help="a tenth of everything")
    made.add_argument("--threads", type=int, default=2, help="code tasks at a time")
    made.add_argument("--json", type=Path, help="write the figures there")
    made.add_argument("--only", nargs="+", choices=["gsm8k", "math", "constraints", "programs"], help="some of the parts")
    args = made.parse_args()
    step = 10 if args.quick else 1
    lines: list[Line] = []
    parts = {
        "gsm8k": gsm8k(args.data, step),
        "math": math_answers(args.data, step),
        "constraints": constraints(args.data, step),
        "programs": programs(args.data, step, args.threads),
    }
    for part in args.only or parts:
        lines += parts[part]
    print(table(lines))
    pairs = list(combinations(CONSTRAINTS, 2))
    print(f"kinds of constraints: {dict(Counter(c.group for c in CONSTRAINTS.values()))}; in conflict: ", end="")
    print(f"{sum(conflict(a, b) for a, b in pairs)} of {len(pairs)} pairs")
    if args.json:
        args.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
