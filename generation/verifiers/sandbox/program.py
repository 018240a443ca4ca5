"""A whole program: reads its standard input, writes its standard output. In: descriptor 3, its source. Follows wire.py."""
# mypy: ignore-errors
# Run by jail.py behind wire.py, in another interpreter: its names come from there.

import sys


def main():
    """Run the source as a script."""
    code = Wire(3, 4).receive()["code"]  # noqa: F821
    scope = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        exec(compile(code, "candidate.py", "exec"), scope)
    finally:
        sys.stdout.flush()
