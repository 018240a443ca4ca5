"""The main job at size: end to end in bounded memory, a second run, and the mixing step beside the Hugging Face way, polars and duckdb.

    python -m bench.curation --data ../shared/data --gb 1 --work /tmp/bench --json curation.json

Texts are real conversations from the data folder, repeated with a number in each so that no two rows are equal. Every measured run is a
process of its own; CPU seconds are user + system of the process and its threads; peak memory is the process's own. The peers do the
mixing step alone (read Parquet, keep rows under 512 words, take a share of each source, shuffle, write Parquet); ours does the same step
of a build whose sources are loaded and measured, and writes the dropped rows, columns, manifest and card besides.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SOURCES = {
    "dolly": ("instructions/dolly_15k.parquet", "instruction", "response"),
    "alpaca": ("instructions/alpaca_17k.parquet", "instruction", "output"),
    "flan": ("instructions/flan_v2_cot.parquet", "question", "cot"),
    "t0": ("instructions/t0_p3_subset.parquet", "prompt", "completion"),
    "lima": ("instructions/lima.parquet", "instruction", "output"),
    "code": ("instructions/evol_codealpaca_4k.parquet", "instruction", "output"),
    "outputs": ("completions/alpaca_eval_outputs.parquet", "instruction", "output"),
    "judged": ("preferences/just_eval_safety_ratings.parquet", "input", "output_cand"),
}
FRACTION = 0.5
SEED = 1


def make_data(data: Path, work: Path, gb: float) -> list[Path]:
    """Eight JSONL files of chat messages, together `gb` GB."""
    import pyarrow.parquet as pq

    folder = work / f"jsonl-{gb:g}"
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, (file, ask, answer) in SOURCES.items():
            pairs = [(r[ask], r[answer]) for r in pq.read_table(data / file, columns=[ask, answer]).to_pylist() if r[ask] and r[answer]]
            left = int(gb * 1e9 / len(SOURCES))
            with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as out:
                replica = 0
                while left > 0:
                    for question, response in pairs:
                        messages = [{"role": "user", "content": f"[{replica}] {question}"}, {"role": "assistant", "content": response}]
                        line = json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
                        out.write(line)
                        left -= len(line.encode())
                        if left <= 0:
                            break
                    replica += 1
        done.touch()
    return sorted(folder.glob("*.jsonl"))


def mix_config(files: list[Path], path: Path, name: str, amount: dict[str, Any], **more: Any) -> Path:
    """A mix over the files."""
    sources = [{"name": f.stem, "path": str(f.resolve()), **amount} for f in files]
    path.write_text(json.dumps({"name": name, "kind": "sft", "seed": SEED, "sources": sources, **more}))
    return path


def measure(command: list[str]) -> dict[str, float]:
    """Run a command; CPU seconds, wall seconds, peak MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    code = (
        "import resource, subprocess, sys; r = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": round(cpu, 2), "wall_s": round(time.monotonic() - start, 2), "peak_mb": int(done.stdout.split()[-1]) // 1024}


PEERS = {
    "Hugging Face datasets": """
import sys, glob, datasets
datasets.disable_progress_bars()
parts = []
for folder in sys.argv[2:]:
    files = sorted(glob.glob(folder + "/*.parquet"))
    d = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=sys.argv[1] + "-cache")
    d = d.select_columns(["id", "messages"])
    d = d.filter(lambda row: sum(len(m["content"].split()) for m in row["messages"]) <= 512)
    d = d.shuffle(seed=1).select(range(int(len(d) * 0.5)))
    parts.append(d)
datasets.concatenate_datasets(parts).shuffle(seed=1).to_parquet(sys.argv[1])
""",
    "polars": """
import sys, polars as pl
parts = []
for folder in sys.argv[2:]:
    d = pl.read_parquet(folder + "/*.parquet", columns=["id", "messages"])
    words = pl.col("messages").list.eval(pl.element().struct.field("content").str.count_matches(r"\\S+")).list.sum()
    parts.append(d.filter(words <= 512).sample(fraction=0.5, seed=1))
pl.concat(parts).sample(fraction=1.0, shuffle=True, seed=1).write_parquet(sys.argv[1], compression="zstd", compression_level=1)
""",
    "duckdb": """
import sys, duckdb
con = duckdb.connect()
con.execute("SET memory_limit = '4GB'")
words = "list_sum(list_transform(messages, lambda m: len(string_split(m.content, ' '))))"
parts = " UNION ALL ".join(
    f"(SELECT id, messages FROM read_parquet('{f}/*.parquet') WHERE {words} <= 512 AND hash(id, 1) % 1000 < 500)" for f in sys.argv[2:]
)
con.execute(f"COPY (SELECT * FROM ({parts}) ORDER BY hash(id, 2)) TO '{sys.argv[1]}' (FORMAT parquet, COMPRESSION zstd)")
""",
}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="the folder of real data")
    made.add_argument("--work", type=Path, default=Path("/tmp/caravan-bench"), help="scratch space")
    made.add_argument("--gb", type=float, default=1.0, help="GB of text")
    made.add_argument("--runs", type=int, default=3, help="alternating runs of the mixing step")
    made.add_argument("--no-peers", action="store_true")
    made.add_argument("--json", type=Path, help="write the figures here")
    args = made.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    files = make_data(args.data, args.work, args.gb)
    size = sum(f.stat().st_size for f in files)
    out, cache = args.work / "out", args.work / "out" / ".cache"
    shutil.rmtree(out, ignore_errors=True)
    build = [sys.executable, "-m", "curation.build_mix"]
    more = {"limits": {"max_tokens": 2048}, "select": {"refusal": "NOT refusal", "empty": "NOT empty"}, "dedup": {"exact": True}}
    config = mix_config(files, args.work / "mix.json", "bench", {"fraction": FRACTION}, validation={"fraction": 0.01}, **more)
    figures: dict[str, Any] = {"gb": size / 1e9}
    lines = []

    def note(name: str, result: dict[str, float]) -> None:
        figures[name] = result
        lines.append({"run": name, **result, "MB/CPU s": round(size / 1e6 / max(result["cpu_s"], 1e-9), 1)})
        print(lines[-1], flush=True)

    note("build_mix, everything", measure([*build, str(config), "--out", str(out / "mix"), "--cache", str(cache)]))
    note("build_mix, nothing changed", measure([*build, str(config), "--out", str(out / "mix"), "--cache", str(cache)]))
    note("build_mix --help", measure([*build, "--help"]))
    plain = mix_config(files, args.work / "plain.json", "plain", {"fraction": FRACTION}, limits={"max_tokens": 1024})
    folders = [str(next((cache / "load").glob(f"{f.stem}-*")) / "rows") for f in files]
    samples: dict[str, list[dict[str, float]]] = {}
    for _ in range(args.runs):
        ours = measure([*build, str(plain), "--out", str(out / "plain"), "--cache", str(cache), "--force"])
        samples.setdefault("build_mix (cached sources)", []).append(ours)
        for name, code in {} if args.no_peers else PEERS.items():
            shutil.rmtree(f"{out / 'peer.parquet'}-cache", ignore_errors=True)
            samples.setdefault(name, []).append(measure([sys.executable, "-c", code, str(out / "peer.parquet"), *folders]))
    for name, runs in samples.items():
        note(f"mixing: {name}", sorted(runs, key=lambda r: r["cpu_s"])[len(runs) // 2])
    ours_cpu = figures["mixing: build_mix (cached sources)"]["cpu_s"]
    for line in lines:
        if line["run"].startswith("mixing"):
            line["CPU, ours = 1"] = round(line["cpu_s"] / ours_cpu, 2)
    from columnar.cli import table

    print(
        f"\n{size / 1e9:.2f} GB of JSONL in {len(files)} sources\n"
        + table(lines, ["run", "cpu_s", "wall_s", "peak_mb", "MB/CPU s", "CPU, ours = 1"])
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
