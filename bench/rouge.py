"""Cost of the Self-Instruct novelty filter: ours beside the published scan (rouge_score) and a bit-parallel one (rapidfuzz).

    python -m bench.rouge --pool 50000 --peer PEER/bin/python [--json FILE]

PEER is a virtual environment with `rouge-score` and `rapidfuzz`; it sees the same pool and candidates, and must decide the same.
The published script calls rouge_score in a fresh process pool for every candidate; here it runs in one process, which is its total work.
CPU milliseconds per candidate, candidates not added to the pool.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from columnar.cli import table
from generation.rouge import RougePool

COMMON = (
    "write a short note about the list of things that person might want to know when they plan visit find rewrite sentence given text "
    "classify whether following is positive or negative explain steps needed make story table numbers email boss team report code python "
    "function returns summary article question answer"
)
WORDS = COMMON.split()
TOPICS = [f"topic{i}" for i in range(4000)]

PEER = """
import json, sys, time
data = json.load(open(sys.argv[1])); pool, candidates = data["pool"], data["candidates"]
out = {}
from rouge_score import rouge_scorer, tokenize
scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
slow = candidates[: data["slow"]]
t = time.process_time()
out["scan_accepts"] = [max(scorer.score(c, p)["rougeL"].fmeasure for p in pool) <= 0.7 for c in slow]
out["scan_ms"] = (time.process_time() - t) / len(slow) * 1e3
from rapidfuzz.distance import LCSseq
ids = {}
encode = lambda s: [ids.setdefault(w, len(ids)) for w in tokenize.tokenize(s, None)]
P, some = [encode(p) for p in pool], candidates[: data["medium"]]
t = time.process_time()
accepts = []
for c in some:
    c = encode(c)
    accepts.append(not any(2 * LCSseq.similarity(c, p) / (len(c) + len(p)) > 0.7 for p in P))
out["bits_ms"], out["bits_accepts"] = (time.process_time() - t) / len(some) * 1e3, accepts
print(json.dumps(out))
"""


def corpus(n: int, seed: int) -> list[str]:
    """Instruction-like texts, 15 words in the mean, one in seven a near copy of an earlier one."""
    draw = random.Random(seed)
    out: list[str] = []
    for _ in range(n):
        words = [draw.choice(WORDS if draw.random() < 0.7 else TOPICS) for _ in range(max(4, min(40, int(draw.gauss(15, 6)))))]
        if out and draw.random() < 0.15:
            words = out[draw.randrange(len(out))].split()
            for _ in range(draw.randint(0, max(1, len(words) // 4))):
                words[draw.randrange(len(words))] = draw.choice(WORDS)
        out.append(" ".join(words))
    return out


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--pool", type=int, default=50_000)
    made.add_argument("--candidates", type=int, default=400)
    made.add_argument("--slow", type=int, default=3, help="candidates for the published scan")
    made.add_argument("--peer", help="python with rouge-score and rapidfuzz")
    made.add_argument("--json", type=Path)
    args = made.parse_args()
    texts = corpus(args.pool + args.candidates, 1)
    pool, candidates = texts[: args.pool], texts[args.pool :]
    RougePool(["warm up the compiled kernel"]).nearest("warm up the compiled kernel")
    began = time.process_time()
    ours = RougePool(pool)
    build = time.process_time() - began
    began = time.process_time()
    accepts = [ours.nearest(text) is None for text in candidates]
    mine = (time.process_time() - began) / len(candidates) * 1e3
    rows = [{"method": "ours", "ms per candidate": mine, "times faster": 1.0, "same accepts": True}]
    if args.peer:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"pool": pool, "candidates": candidates, "slow": args.slow, "medium": min(20, args.candidates)}, file)
            file.flush()
            peer = json.loads(subprocess.run([args.peer, "-c", PEER, file.name], check=True, capture_output=True, text=True).stdout)
        for name, key in (("rouge_score, whole pool (published)", "scan"), ("rapidfuzz, whole pool", "bits")):
            same = peer[f"{key}_accepts"] == accepts[: len(peer[f"{key}_accepts"])]
            took = peer[f"{key}_ms"]
            rows.append({"method": name, "ms per candidate": took, "times faster": took / mine, "same accepts": same})
    print(f"pool {args.pool:,} texts (built in {build:.2f} s), {accepts.count(False)} of {len(accepts)} candidates rejected")
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps({"pool": args.pool, "build_s": build, "rows": rows}, indent=2))
    return 0 if all(row["same accepts"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
