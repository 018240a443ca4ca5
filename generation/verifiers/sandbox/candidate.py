"""The candidate's side: run its code, then answer the judge's calls. It never sees a test, an expected value or the verdict.

In: descriptor 3, requests; out: descriptor 4, one reply each: {"value": ...} or {"raised": type, "text": ...}. Follows wire.py.
"""
# mypy: ignore-errors
# Run by jail.py behind wire.py, in another interpreter: its names come from there.

import itertools
import os
import sys

OBJECTS: list = []


def keep(value):
    """A handle for a value that cannot travel."""
    OBJECTS.append(value)
    return {"@": len(OBJECTS) - 1, "type": type(value).__name__[:100]}


def perform(request, scope):
    """One request of the judge."""
    what = request["do"]
    if what == "names":
        return [name for name in scope if isinstance(name, str) and not name.startswith("__")]
    target = decode(request["on"], OBJECTS.__getitem__) if isinstance(request["on"], dict) else scope[request["on"]]  # noqa: F821
    if what == "call":
        args = [decode(item, OBJECTS.__getitem__) for item in request["args"]]  # noqa: F821
        return target(*args, **{k: decode(v, OBJECTS.__getitem__) for k, v in request["kwargs"].items()})  # noqa: F821
    if what == "get":
        return getattr(target, request["name"])
    if what == "set":
        return setattr(target, request["name"], decode(request["value"], OBJECTS.__getitem__))  # noqa: F821
    if what == "item":
        return target[decode(request["key"], OBJECTS.__getitem__)]  # noqa: F821
    if what == "len":
        return len(target)
    if what == "list":
        return list(itertools.islice(iter(target), MAX_ITEMS + 1))  # noqa: F821
    if what == "str":
        return str(target)
    if what == "take":
        return target
    raise ValueError(what)


def main():
    """Serve until the judge is gone."""
    wire = Wire(3, 4)  # noqa: F821
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.setrecursionlimit(5_000)
    first = wire.receive()
    scope = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        exec(compile(first["code"], "candidate.py", "exec"), scope)
        wire.send({"id": 0, "value": LOCKED})  # noqa: F821
    except BaseException as error:
        wire.send({"id": 0, "raised": type(error).__name__, "text": str(error)[:300]})
        return
    while True:
        request = wire.receive()
        try:
            reply = {"id": request["id"], "value": encode(perform(request, scope), keep)}  # noqa: F821
        except BaseException as error:
            reply = {"id": request["id"], "raised": type(error).__name__[:100], "text": str(error)[:300]}
        wire.send(reply)
