"""The tests' side: runs a task's tests against a candidate in another process, and reports each test to the caller.

In: descriptor 0, JSON {code, setup, tests, entry, form, seconds}; 3 and 4, the candidate. Out: descriptor 5, a line of JSON per test.
Comparisons happen here, on plain values of built-in types: an object that claims to equal everything, a patched `assert`, a printed
"passed" and an early exit change nothing. Arguments are copies: a candidate that empties its input changes its own copy.
"""
# mypy: ignore-errors
# Run by jail.py behind wire.py, in another interpreter: its names come from there.

import ast
import builtins
import contextlib
import importlib
import os
import sys
import time

MODULES = frozenset(
    (
        *(
            "math",
            "cmath",
            "re",
            "collections",
            "itertools",
            "functools",
            "operator",
            "string",
            "random",
            "datetime",
            "decimal",
            "fractions",
        ),
        *("statistics", "heapq", "bisect", "copy", "json", "typing", "numpy"),
    )
)


class CandidateError(Exception):
    """The candidate raised; the name of what it raised is in the text."""


def candidate_error(kind, text):
    """A CandidateError that an `except ValueError` in a test catches too, when that is what the candidate raised."""
    known = getattr(builtins, kind, None)
    bases = (CandidateError, known) if isinstance(known, type) and issubclass(known, Exception) else (CandidateError,)
    try:
        return type(kind, bases, {})(f"{kind}: {text}")
    except TypeError:
        return CandidateError(f"{kind}: {text}")


class Gone(BaseException):
    """The candidate process hung, died, or broke the protocol: no further test can run."""


class Remote:
    """Something of the candidate's that stays in its process. It is equal to nothing but itself, and true or false to nobody."""

    def __init__(self, link, reference, kind="object"):
        object.__setattr__(self, "_at", (link, reference, kind))

    def _do(self, what, **more):
        link, reference, _ = object.__getattribute__(self, "_at")
        return link.ask({"do": what, "on": reference, **more})

    def __call__(self, *args, **kwargs):
        """Call it in its process."""
        link, _, _ = object.__getattribute__(self, "_at")
        return self._do("call", args=[encode(a, link.pack) for a in args], kwargs={k: encode(v, link.pack) for k, v in kwargs.items()})  # noqa: F821

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._do("get", name=name)

    def __setattr__(self, name, value):
        self._do("set", name=name, value=encode(value, object.__getattribute__(self, "_at")[0].pack))  # noqa: F821

    def __getitem__(self, key):
        return self._do("item", key=encode(key, object.__getattribute__(self, "_at")[0].pack))  # noqa: F821

    def __iter__(self):
        return iter(self._do("list"))

    def __len__(self):
        return int(self._do("len"))

    def __str__(self):
        return str(self._do("str"))

    def __eq__(self, other):
        return self is other

    def __bool__(self):
        raise TypeError("the candidate returned " + object.__getattribute__(self, "_at")[2] + ", which is no plain value")

    __hash__ = object.__hash__


class Link:
    """The pipes to the candidate, with a time-out per call."""

    def __init__(self, seconds):
        self.wire, self.seconds, self.count = Wire(3, 4), seconds, 0  # noqa: F821

    def pack(self, value):
        """A handle back to its owner; other objects of the judge's do not travel."""
        if isinstance(value, Remote):
            reference = object.__getattribute__(value, "_at")[1]
            return reference if isinstance(reference, dict) else self.ask({"do": "take", "on": reference}, raw=True)
        raise TypeError(f"a {type(value).__name__} cannot be handed to the candidate")

    def ask(self, request, raw=False):
        """One call; CandidateError when the candidate raised."""
        self.count += 1
        try:
            self.wire.send({**request, "id": self.count})
            reply = self.wire.receive(time.monotonic() + self.seconds)
            if reply["id"] != self.count:
                raise ValueError("replies out of turn")
            if "raised" in reply:
                raise candidate_error(str(reply["raised"]), str(reply["text"]))
            if raw:
                return reply["value"]
            return decode(reply["value"], lambda n: Remote(self, {"@": n}, str(reply["value"].get("type", "object"))))  # noqa: F821
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            raise Gone(str(error)) from None
        except (KeyError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, RecursionError | ValueError) and "too" in str(error):
                raise CandidateError(str(error)) from None
            raise Gone(f"broke the protocol: {error}") from None


def report(name, passed, text=""):
    """One test's result to the caller."""
    os.write(5, json.dumps({"test": name, "passed": passed, "text": text[:300]}).encode() + b"\n")  # noqa: F821


class Watched(ast.NodeTransformer):
    """Every assert reports by itself, so that the first failure does not hide the others."""

    def visit_Assert(self, node):
        """A test."""
        if isinstance(node.test, ast.Constant):
            return ast.Pass()
        return self.guard(node, counts=True)

    def visit_Expr(self, node):
        """A call, which may be a test in a function of its own."""
        return self.guard(node, counts=False) if isinstance(node.value, ast.Call) else node

    @staticmethod
    def guard(node, counts):
        """try: NODE; __passed__(line) except Exception as e: __failed__(line, e)."""
        call = f"__passed__({node.lineno})" if counts else "pass"
        made = ast.parse(f"try:\n  pass\n  {call}\nexcept Exception as __error__:\n  __failed__({node.lineno}, __error__)").body[0]
        made.body[0] = node
        for part in ast.walk(made):
            ast.copy_location(part, node) if not hasattr(part, "lineno") else None
        return ast.fix_missing_locations(made)


def names_in(source):
    """The names that a source reads."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def text_of(error):
    """An exception in a report."""
    return str(error) if isinstance(error, CandidateError) else f"{type(error).__name__}: {error}"


def main():
    """Run the tests."""
    task = json.loads(sys.stdin.buffer.read())  # noqa: F821
    link = Link(task["seconds"])
    sys.setrecursionlimit(5_000)
    seen = {"n": 0}

    def passed(line):
        seen["n"] += 1
        report(f"line {line}", True)

    def failed(line, error):
        seen["n"] += 1
        report(f"line {line}", False, text_of(error))

    try:
        try:
            link.wire.send({"code": task["code"]})
            first = link.wire.receive(time.monotonic() + task["seconds"])
        except (TimeoutError, EOFError, BrokenPipeError, ValueError) as error:
            raise Gone(f"the code did not load: {error}") from None
        if "raised" in first:
            return report("load", False, f"{first['raised']}: {first['text']}")
        theirs = set(link.ask({"do": "names"}))
        scope = {"__name__": "__judge__", "__passed__": passed, "__failed__": failed}
        named = names_in("\n".join([task["setup"], *task["tests"]]))
        # a built-in may be the function under test (`assert sum(1, 2) == 3`), but only where no other name could be
        own = not any(name not in MODULES and not hasattr(builtins, name) for name in named)
        for name in named:
            if name in MODULES:
                with contextlib.suppress(ImportError):
                    scope[name] = importlib.import_module(name)
            elif name in theirs and (own or not hasattr(builtins, name)):
                scope[name] = Remote(link, name)
        if task["form"] == "humaneval":
            if task["entry"] not in theirs:
                return report("load", False, f"{task['entry']} is not defined")
            exec(compile(task["setup"], "prompt.py", "exec"), scope)
            scope[task["entry"]] = Remote(link, task["entry"])
            tree = ast.fix_missing_locations(Watched().visit(ast.parse(task["tests"][0])))
            exec(compile(tree, "tests.py", "exec"), scope)
            scope["check"](scope[task["entry"]])
            if not seen["n"]:
                report("check", True)
            return None
        exec(compile(task["setup"], "setup.py", "exec"), scope)
        for number, test in enumerate(task["tests"]):
            try:
                exec(compile(test, "test.py", "exec"), scope)
                report(f"test {number}", True)
            except Exception as error:
                report(f"test {number}", False, text_of(error) if str(error) else f"{type(error).__name__}: {test[:200]}")
    except Gone as error:
        report("process", False, str(error))
    except Exception as error:
        report("tests", False, text_of(error))
    finally:
        os.write(5, b'{"done": true}\n')
