"""Judges that are programs: `verify(row, completion) -> Verdict(score, passed, parts, reason, error)`.

A row names its verifier in `verifier` (a name, or JSON: a list of {name, weight, ground_truth}) and what it needs in `ground_truth`:

    name     ground_truth                                                            right when
    gsm8k    `18`, or a worked solution ending in `#### 18`                          the number answered is that number
    math     LaTeX, or a reference solution with \\boxed{}                            the answer is mathematically the same
    choice   `B`, or {"answer": "B", "options": {"A": ..., "B": ...}}                that option, and no other, is chosen
    exact    a text, or {"answer": [texts], "case": true}                            the answer is that text
    f1       a text, or {"answer": [texts], "threshold": 0.8}                        token F1 (SQuAD) reaches the threshold
    ifeval   [{"instruction_id": [...], "kwargs": [...]}] or {"func_name": ...}      every constraint holds
    code     {"form": "humaneval" | "mbpp" | "stdio", ...}                           every test passes in the sandbox

Here `answer` may always stand in a JSON object with options of the verifier: {"answer": "18", "marked": true}.
"""

from generation.verifiers.dispatch import VERIFIERS, Task, check_rows, resolve, verify
from generation.verifiers.verdict import Part, Verdict

__all__ = ["VERIFIERS", "Part", "Task", "Verdict", "check_rows", "resolve", "verify"]
