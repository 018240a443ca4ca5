"""What went wrong on a cluster, as errors that say what to do: blocks that could not be worked on, and what Ray itself raises."""

from __future__ import annotations

import re

from columnar.damage import damage
from columnar.errors import CaravanError, ConfigError, InputError, StoreError
from columnar.files import unreadable

NAMED = 5  # bad blocks that an error names


def failure(bad: list[tuple[str, CaravanError]], count: int, files: bool) -> CaravanError:
    """The error of a run some of whose blocks (source files, if `files`) could not be worked on."""
    first = bad[0][1]
    one_cause = len({str(problem) for _, problem in bad}) == 1
    if type(first) is not CaravanError and one_cause:  # an error of ours says what it is about, and what to do
        return first
    if files and all(type(problem) is InputError for _, problem in bad):
        return unreadable({name: str(problem).removeprefix(f"{name}: ") for name, problem in bad}, count, first.hint)
    names = "".join(f"\n  {name}: {problem}" for name, problem in bad[:NAMED]) + (f"\n  and {len(bad) - NAMED:,} more" * (len(bad) > NAMED))
    hint = next((problem.hint for _, problem in bad if problem.hint), None)
    if hint is None:
        damaged = damage()
        hint = damaged.hint if damaged else "make these whole, then run the same command again"
    return StoreError(f"{len(bad):,} of {count:,} blocks could not be worked on:{names}", f"the other blocks are finished and kept: {hint}")


def lost(error: Exception) -> CaravanError:
    """What Ray says when no worker could even begin."""
    text = str(error)
    if "ModuleNotFoundError" in text or "No module named" in text:
        package = text.rpartition("No module named")[2].strip().strip("'\"").split("'")[0].split("\n")[0] or "caravan"
        return ConfigError(
            f"--engine ray: the workers of the cluster have no package {package!r}",
            "install the same version there as here (pip install '.[ray]' in its folder), and packages of your own beside it",
        )
    if short := re.search(r"Memory on the node \(IP: (\S+),.*?\) was (\S+ used / \S+) limit", text):
        return CaravanError(
            f"--engine ray: Ray ended the workers on {short[1]} again and again, because its memory ran short ({short[2]})",
            "free memory there, or start Ray there with fewer CPUs, then run the same command again: blocks that are finished are kept",
        )
    said = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception|Failure)\b: .+)$", text, re.MULTILINE)
    if said and said[0].startswith("FileNotFoundError"):
        return ConfigError(
            f"--engine ray: a worker does not see the files of this machine: {said[0]}",
            "driver and workers need one file system: give paths that are the same on all machines of the cluster",
        )
    return CaravanError(
        f"--engine ray: the cluster gave up: {said[0] if said else text.strip()[:300] or type(error).__name__}",
        "blocks that are finished are kept: run the same command again (--traceback shows all that Ray said)",
    )
