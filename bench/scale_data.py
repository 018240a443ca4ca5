"""Text of any size whose duplicates are those of real text: for the benches of scale.

    python -m bench.scale_data --data ../shared/data --gb 1 --work /tmp/bench

Real conversations, again and again, each time in a letter cipher of its own: `the cat` becomes `qzx mcq`. Lengths, repetitions and near
copies within a pass stay what they are, and no two passes share more than texts without letters, so that duplicates grow with the rows
and not with their square. Files are .jsonl.zst; `gb` counts what is in them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import string
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.curation import SOURCES


def cipher(number: int) -> dict[int, int]:
    """A permutation of the letters; number 0 leaves all as they are."""
    small, large = list(string.ascii_lowercase), list(string.ascii_uppercase)
    if number:
        random.Random(f"small {number}").shuffle(small)
        random.Random(f"large {number}").shuffle(large)
    return str.maketrans(string.ascii_letters, "".join(small + large))


def lines(pairs: list[tuple[str, str]], size: int) -> Iterator[bytes]:
    """Chats as JSON lines, until `size` bytes are reached."""
    number = 0
    while size > 0:
        table = cipher(number)
        for question, answer in pairs:
            ask, reply = json.dumps(question.translate(table), ensure_ascii=False), json.dumps(answer.translate(table), ensure_ascii=False)
            line = f'{{"messages": [{{"role": "user", "content": {ask}}}, {{"role": "assistant", "content": {reply}}}]}}\n'.encode()
            yield line
            size -= len(line)
            if size <= 0:
                return
        number += 1


def make_texts(data: Path, work: Path, gb: float) -> list[Path]:
    """Eight files, together `gb` GB of JSON; made once."""
    folder = work / f"texts-{gb:g}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, (file, ask, answer) in SOURCES.items():
            pairs = [(r[ask], r[answer]) for r in pq.read_table(data / file, columns=[ask, answer]).to_pylist() if r[ask] and r[answer]]
            with pa.CompressedOutputStream(str(folder / f"{name}.jsonl.zst"), "zstd") as out:
                waiting: list[bytes] = []
                for line in lines(pairs, int(gb * 1e9 / len(SOURCES))):
                    waiting.append(line)
                    if len(waiting) == 1000:
                        out.write(b"".join(waiting))
                        waiting.clear()
                out.write(b"".join(waiting))
        (folder / "done").touch()
    return sorted(folder.glob("*.zst"))


if __name__ == "__main__":
    made = argparse.ArgumentParser("python -m bench.scale_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="../shared/data")
    made.add_argument("--gb", type=float, default=0.1)
    made.add_argument("--work", default="/tmp/bench")
    args = made.parse_args()
    print(*make_texts(Path(args.data), Path(args.work), args.gb), sep="\n")
