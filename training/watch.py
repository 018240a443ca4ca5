"""What watches a run while it trains: metrics.jsonl, the end of a run whose loss is no number, progress on the terminal."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from columnar.cli import Progress
from columnar.errors import CaravanError
from columnar.store import whole_file
from training.metrics import read


class Watch(TrainerCallback):
    """Writes one JSON a logging step, in whole lines; a run that goes on from a checkpoint first drops the lines after it."""

    def __init__(self, out: Path, steps: int | None = None) -> None:
        self.path = out / "metrics.jsonl"
        self.bar = Progress("train", total=steps, unit="steps")
        self.tokens = self.seconds = 0.0
        self.before = (0.0, 0.0)
        self.start = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Make the file fit the step at which the run starts."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in read(self.path) if line.get("step", 0) <= state.global_step] if state.global_step else []
        with whole_file(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self.tokens = max((line.get("tokens") or 0 for line in kept), default=0)
        self.seconds = max((line.get("seconds") or 0 for line in kept), default=0)
        self.before, self.start = (self.seconds, self.tokens), time.monotonic()
        self.bar.total, self.bar.done = state.max_steps, state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Look at the loss before it is saved."""
        if control.should_save:
            control.should_log = True
        if state.is_world_process_zero:
            last = state.log_history[-1] if state.log_history else {}
            self.bar.add(1, note=f"loss {last['loss']:.4g}" if "loss" in last else "")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        """One line of metrics; the end when the loss is not a number."""
        logs = dict(logs or {})
        if "loss" in logs and not (math.isfinite(float(logs["loss"])) and math.isfinite(float(logs.get("grad_norm") or 0))):
            raise CaravanError(
                f"step {state.global_step}: the loss is {logs['loss']}, the gradient's norm {logs.get('grad_norm')}; not saved",
                "lower learning_rate, set max_grad_norm=1.0, look at the rows (python -m training.data); whole checkpoints are kept",
            )
        if not state.is_world_process_zero or "train_runtime" in logs:
            return
        line: dict[str, Any] = {"step": state.global_step}
        if "num_tokens" in logs:
            line["tokens"] = int(self.tokens + logs.pop("num_tokens"))
        logs.pop("eval_num_tokens", None)
        line["seconds"] = round(self.seconds + time.monotonic() - self.start, 3)
        if line.get("tokens") and "loss" in logs:
            (seconds, tokens), self.before = self.before, (line["seconds"], line["tokens"])
            line["tokens_per_second"] = round((line["tokens"] - tokens) / max(line["seconds"] - seconds, 1e-6))
        line |= {key: _number(value) for key, value in logs.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _number(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
