"""Every error a user can cause, and the exit code it ends with.

CaravanError                 1   the run failed
├── StoreError               1   a dataset directory is incomplete, out of step, or belongs to something else
├── ConfigError              2   a config or a flag is wrong; lists all problems at once
├── InputError               2   an input is missing or cannot be read at all
├── QueryError               2   a SQL statement is refused or fails
├── RejectedRows             3   more input rows are malformed than `max_reject` allows
└── Contaminated             4   `--fail-on` asked for failure and a benchmark of that kind was hit
"""

from __future__ import annotations


class CaravanError(Exception):
    """A failure with a message for the user: what was found, what was expected, what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class StoreError(CaravanError):
    """A dataset directory is incomplete, out of step, or belongs to something else."""


class ConfigError(CaravanError):
    """A config or a flag is wrong."""

    exit_code = 2


class InputError(CaravanError):
    """An input file is missing or cannot be read at all."""

    exit_code = 2


class QueryError(CaravanError):
    """A SQL statement is refused or fails."""

    exit_code = 2


class RejectedRows(CaravanError):
    """More input rows are malformed than `max_reject` allows."""

    exit_code = 3


class Contaminated(CaravanError):
    """`--fail-on` asked for failure and a benchmark of that kind was hit."""

    exit_code = 4
