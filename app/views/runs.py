"""Runs, while they run and after: the curves of training, the answers, failures and costs of generation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import streamlit as st

from app import charts, db, render, shell
from app.curves import curve
from app.runs import FILES, Run, find_runs, pace, read_run
from columnar.errors import CaravanError

LIVE = 120.0  # seconds since the last word of a run that is called running
AGAIN = 5.0  # seconds after which the page looks again while something runs
FIRST = ("loss", "eval_loss", "reward", "kl", "objective", "eval", "accuracy", "learning_rate")  # how the first figures' names begin
LEDGER = """SELECT stage, model, what, outcome, any_value(reason) AS example, count(*) AS n FROM hits_ledger
    GROUP BY stage, model, what, outcome ORDER BY n DESC LIMIT 100"""


def show(folders: list[Path]) -> None:
    """Draw the page."""
    st.title("Runs")
    found = find_runs(folders)
    if not found:
        st.html(
            render.note("No run below " + ", ".join(map(str, folders)) + ". A run of generation or training leaves its progress there:")
            + render.command("python -m generation.respond CONFIG.yaml --out out/answers")
            + render.command("python -m training.sft out/tiny --model MODEL --out runs/sft")
        )
        return
    names = {_name(path, folders): path for path in found}
    chosen = [name for name in shell.current().choice("runs").split("|") if name in names] or [next(iter(names))]
    st.session_state["runs.chosen"] = chosen
    st.multiselect(
        "Runs, the newest first (several: their curves are drawn together)",
        list(names),
        key="runs.chosen",
        on_change=lambda: shell.go(shell.current().with_choice("runs", "|".join(st.session_state["runs.chosen"]))),
    )
    paths = {name: names[name] for name in chosen}
    alive = any(_age(path) < LIVE for path in paths.values())
    st.fragment(_draw, run_every=AGAIN if alive else None)(paths)


def _name(path: Path, folders: list[Path]) -> str:
    """A run's path as short as it is clear."""
    for folder in sorted((folder.resolve() for folder in folders), key=lambda one: len(one.parts)):
        if path.is_relative_to(folder):
            return str(Path(folder.name) / path.relative_to(folder))
    return str(path)


def _age(path: Path) -> float:
    times = [(path / name).stat().st_mtime for name in FILES if (path / name).is_file()]
    return time.time() - max(times, default=0.0)


def _draw(paths: dict[str, Path]) -> None:
    runs = {name: read_run(path) for name, path in paths.items()}
    training = {name: run for name, run in runs.items() if run.steps}
    if training:
        _training(training)
    for name, run in runs.items():
        if run.calls or run.costs:
            _generation(name, run)
        if run.unread:
            st.html(render.note(f"{name}: {run.unread:,} lines of its logs are not JSON and were left out"))
    if not training and not any(run.calls or run.costs for run in runs.values()):
        st.html(render.note("Nothing was logged yet."))


def _training(runs: dict[str, Run]) -> None:
    tiles = []
    for name, run in runs.items():
        last = run.steps[-1]
        loss = next((line["loss"] for line in reversed(run.steps) if isinstance(line.get("loss"), int | float)), None)
        state = "finished" if run.finished else "running" if _age(run.path) < LIVE else "stopped"
        tiles.append((name, f"loss {loss:.4g}" if loss is not None else "no loss yet", f"step {last.get('step', len(run.steps))}, {state}"))
    st.html(charts.tiles(tiles))
    curves = {name: run.curves() for name, run in runs.items()}
    figures = sorted({figure for one in curves.values() for figure in one}, key=_rank)
    cells = []
    for figure in figures:
        series = {name: one[figure] for name, one in curves.items() if len(one.get(figure, ())) > 1}
        if series:
            cells.append(curve(figure, series))
    st.html(f'<div class="cv-curves">{"".join(cells)}</div>' if cells else render.note("One step so far: no curve yet."))
    with st.expander("The last logged steps", icon=":material/table_rows:"):
        for name, run in runs.items():
            st.html(render.note(name))
            st.dataframe(run.steps[-20:][::-1], hide_index=True)


def _rank(figure: str) -> tuple[int, str]:
    """What one looks at first comes first; groups such as rewards/... stay together."""
    return (next((number for number, name in enumerate(FIRST) if figure.startswith(name)), len(FIRST)), figure)


def _generation(name: str, run: Run) -> None:
    st.html(f"<h2>{render.escape(name)}</h2>")
    answers = sum(line["answers"] for line in run.calls)
    state = "finished" if run.finished else "running" if _age(run.path) < LIVE else "not finished"
    spent = f"{len(run.costs)} session{'s' if len(run.costs) != 1 else ''}" if run.costs else "noted when a session ends"
    tiles = [
        ("answers", f"{answers:,}", state),
        ("without answer", f"{sum(run.failures.values()):,}", ", ".join(f"{n:,} {outcome}" for outcome, n in run.failures.items())),
        ("tokens read", f"{sum(line['prompt_tokens'] or 0 for line in run.calls):,}", ""),
        ("tokens written", f"{sum(line['completion_tokens'] or 0 for line in run.calls):,}", ""),
        ("spent", f"${run.dollars:,.2f}", spent),
    ]
    st.html(charts.tiles(tiles))
    if run.calls:
        lines = [
            [line["model"], line["answers"], line["not_ok"], line["prompt_tokens"], line["completion_tokens"], _rate(line)]
            for line in run.calls
        ]
        st.html(charts.table(("model", "answers", "not ok", "tokens read", "tokens written", "tokens/s"), lines))
        over_time = pace(run.path)
        if len(over_time) > 2:
            st.html(
                charts.histogram([n for _, n, _ in over_time], [at for at, _, _ in over_time])
                + render.note("Answers over the seconds since the first")
            )
    if run.counts:
        with st.expander("What it made", icon=":material/inventory:"):
            told = {key: value for key, value in run.counts.items() if not isinstance(value, dict)}
            st.html(charts.table(("", "rows"), [[key, value] for key, value in told.items()]))
            for key, value in run.counts.items():
                if isinstance(value, dict) and value and not any(isinstance(one, dict | list) for one in value.values()):
                    st.html(charts.table((key, ""), [[k, v] for k, v in value.items()]))
    if run.costs:
        with st.expander("Sessions and what they cost", icon=":material/payments:"):
            keys = ("started", "seconds", "dollars")
            lines = [[*(line.get(key) for key in keys), json.dumps(line.get("models"), ensure_ascii=False)[:300]] for line in run.costs]
            st.html(charts.table((*keys, "models"), lines))
    _ledger(run)


def _rate(line: dict[str, Any]) -> int:
    return round((line["completion_tokens"] or 0) / max(line["last"] - line["first"], 1.0))


def _ledger(run: Run) -> None:
    """What has no answer, and why."""
    if not (run.path / "hits" / "ledger.parquet").is_file() or not run.finished:
        return
    try:
        lost = db.open_data(run.path).run(LEDGER).rows
    except CaravanError as error:
        shell.problem(str(error), error.hint)
        return
    if lost:
        with st.expander("What is missing, and why", icon=":material/report:"):
            heads = ("stage", "model", "what", "outcome", "example", "n")
            st.html(charts.table(heads, [[str(line[key])[:300] if key != "n" else line[key] for key in heads] for line in lost]))
