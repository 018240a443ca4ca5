"""A run's report: report.md with tables and plots, and a diagram of what came from what.

    page = Report(out, "Zephyr at toy size", "What was done and what came of it.")
    page.section("Pairs", "Best against a random lower one.", rows=[{"pairs": 310, "mean margin": 0.42}])
    page.lines("yield", {"pairs": ([1, 2, 3], [310, 290, 260])}, "round", "pairs")
    page.lineage(steps)
    page.write()

Figures come from the steps, never from the clock, so a killed and resumed run writes the same report.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from columnar.store import whole_file
from recipes.steps import Step

Series = Mapping[str, tuple[Sequence[float] | Sequence[str], Sequence[float]]]


class Report:
    """A Markdown page in the making; plots go beside it into OUT/plots."""

    def __init__(self, out: Path, title: str, about: str) -> None:
        self.out = out
        self.parts = [f"# {title}", about]

    def section(self, title: str, text: str = "", rows: Sequence[Mapping[str, Any]] | None = None) -> None:
        """A heading, a paragraph, a table."""
        self.parts.append(f"## {title}")
        if text:
            self.parts.append(text)
        if rows is not None:
            self.table(rows)

    def text(self, text: str) -> None:
        """A paragraph."""
        self.parts.append(text)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table; the first row names the columns."""
        if not rows:
            self.parts.append("(nothing)")
            return
        names = list(rows[0])
        lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
        self.parts.append("\n".join(lines))

    def gains(self, compared: Mapping[str, tuple[Path, Path]], kinds: Sequence[str] = ("quality",)) -> None:
        """What one model's answers to an exam of the small world are worth more than another's: a line for each pair of directories."""
        from recipes.world.exam import gain

        self.text("Paired differences over the exam's requests, by the truth, with 95 % intervals (of the requests, not of the training).")
        self.table([{"compared": said, "of": kind, **gain(*places, kind)} for said, places in compared.items() for kind in kinds])

    def lines(self, name: str, series: Series, x: str, y: str, marker: str = "o") -> None:
        """A plot of lines."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for label, (xs, ys) in series.items():
            axes.plot(xs, ys, marker=marker, markersize=3, label=label)
        self._finish(figure, axes, name, x, y, len(series) > 1)

    def curve(self, name: str, metrics: Path, what: str) -> None:
        """A training curve from a trainer's metrics.jsonl; nothing where it has no such figure."""
        if not metrics.is_file():
            return
        logged = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        points = [(line["step"], line[what]) for line in logged if what in line]
        if points:
            self.lines(f"{name}_{what.replace('/', '_')}", {name: tuple(zip(*points, strict=True))}, "step", what)  # type: ignore[dict-item]

    def bars(self, name: str, values: Mapping[str, float], y: str) -> None:
        """A plot of bars."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.bar(list(values), list(values.values()), color="#4878a8")
        axes.tick_params(axis="x", rotation=30 if len(values) > 5 else 0)
        self._finish(figure, axes, name, "", y, False)

    def points(self, name: str, at: Mapping[str, tuple[float, float]], x: str, y: str) -> None:
        """Named points in a plane, joined in their order (one model version after the other)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([p[0] for p in at.values()], [p[1] for p in at.values()], color="#bbbbbb", zorder=1)
        for label, place in at.items():
            axes.scatter(*place, zorder=2)
            axes.annotate(label, place, xytext=(4, 4), textcoords="offset points")
        self._finish(figure, axes, name, x, y, False)

    def scatter(self, name: str, groups: Mapping[str, Mapping[str, tuple[float, float]]], x: str, y: str) -> None:
        """Named points in a plane, a colour for each group with its straight line of least squares."""
        import numpy
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for number, (group, at) in enumerate(groups.items()):
            xs, ys = [list(side) for side in zip(*at.values(), strict=True)]
            axes.scatter(xs, ys, color=f"C{number}", s=18, label=group)
            if len(set(xs)) > 1:
                slope, height = numpy.polyfit(xs, ys, 1)
                axes.plot([min(xs), max(xs)], [slope * e + height for e in (min(xs), max(xs))], color=f"C{number}", lw=1, alpha=0.5)
            for label, place in at.items():
                axes.annotate(label, place, xytext=(4, 3), textcoords="offset points", fontsize=7, color=f"C{number}")
        axes.margins(x=0.12)
        self._finish(figure, axes, name, x, y, len(groups) > 1)

    def grid(self, name: str, rows: Mapping[str, Mapping[str, float]], what: str) -> None:
        """A table in colours: darker is more."""
        from matplotlib.figure import Figure

        columns = list(next(iter(rows.values()), {}))
        figure = Figure(figsize=(1.6 + 0.62 * len(columns), 1.2 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        values = [[row[column] for column in columns] for row in rows.values()]
        shown = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value > 0.6 else "black")
        axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
        figure.colorbar(shown, label=what)
        self._finish(figure, axes, name, "", "", False, lines=False)

    def pairs(self, summary: Mapping[str, Any]) -> None:
        """What generation.pairs counted: yield, lengths, margins, who wrote the chosen answers."""
        names = ("prompts", "rows", "yield", "first_place_shared", "equal_texts", "chosen_longer", "length_score_correlation")
        self.section("Pairs", rows=[{name: summary[name] for name in names}])
        self.table([{"model": name, **counts} for name, counts in summary["models"].items()])
        if summary["margins"]:
            self.bars("margins", summary["margins"], "pairs by margin of their scores")

    def samples(self, answers: Mapping[str, Path], count: int = 8) -> None:
        """The first answers to the same prompts, from directories of candidates by name, side by side."""
        from columnar.store import open_dataset, read_batches

        said: dict[str, dict[str, str]] = {}
        for name, directory in answers.items():
            for batch in read_batches(open_dataset(directory), ["prompt", "candidates"]):
                for row in batch.to_pylist():
                    if row["candidates"]:
                        said.setdefault(row["prompt"][-1]["content"], {})[name] = row["candidates"][0]["content"]
        whole = [{"request": request, **each} for request, each in said.items() if len(each) == len(answers)]
        self.section("Samples", rows=whole[:count])

    def lineage(self, steps: Sequence[Step], sources: Mapping[str, Sequence[str]] | None = None) -> None:
        """What came from what, down to the source data; `sources`: per step the data from outside that it read."""
        arrows = [f"  {before} --> {step.name}" for step in steps for before in step.after]
        for name, outside in (sources or {}).items():
            arrows += [f'  src{abs(hash_of(source))}["{_label(source)}"] --> {name}' for source in outside]
        alone = [f"  {step.name}" for step in steps if not step.after]
        self.section("What came from what")
        self.parts.append("```mermaid\nflowchart TD\n" + "\n".join([*alone, *arrows]) + "\n```")

    def write(self) -> Path:
        """Write OUT/report.md."""
        path = self.out / "report.md"
        with whole_file(path) as temporary:
            temporary.write_text("\n\n".join(self.parts) + "\n", encoding="utf-8")
        return path

    def _finish(self, figure: Any, axes: Any, name: str, x: str, y: str, legend: bool, lines: bool = True) -> None:
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if lines:
            axes.grid(alpha=0.3)
        if legend:
            figure.legend(loc="outside upper center", fontsize=8, ncols=4, frameon=False)
        path = self.out / "plots" / f"{name}.png"
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
        self.parts.append(f"![{name}](plots/{name}.png)")


def hash_of(text: str) -> int:
    """A number for a name, the same in every process."""
    return zlib.crc32(text.encode())


def _label(text: str) -> str:
    return text.replace('"', "'").replace("\n", " ")[:80]


def _cell(value: Any) -> str:
    if value is None:
        return "·"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")
