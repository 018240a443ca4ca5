"""Values on the wire between judge and candidate: JSON with tags, never pickle. Runs inside the sandbox, in front of either role.

Plain values travel by copy and arrive as values of the built-in types, whatever class they had, so that a value cannot bring its own
`__eq__` along; everything else travels as a handle ("@", number) and stays where it is.
"""
# mypy: ignore-errors
# Run by jail.py behind wire.py, in another interpreter: its names come from there.

import json
import os
import select
import time

MAX_MESSAGE = 32 << 20
MAX_ITEMS = 2_000_000
TYPES = (int, float, str, bool, bytes, list, tuple, dict, set, frozenset, complex, object, type(None))


class Wire:
    """Two pipes with a line of JSON per message."""

    def __init__(self, source, sink):
        self.source, self.sink, self.buffer = source, sink, bytearray()

    def send(self, message):
        """One message."""
        data = json.dumps(message).encode() + b"\n"
        if len(data) > MAX_MESSAGE:
            raise ValueError("value too large to hand over")
        view = memoryview(data)
        while view:
            view = view[os.write(self.sink, view) :]

    def receive(self, deadline=None):
        """The next message; TimeoutError at the deadline, EOFError when the other side is gone."""
        while b"\n" not in self.buffer:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self.source], [], [], wait)[0]:
                raise TimeoutError("timed out")
            chunk = os.read(self.source, 1 << 16)
            if not chunk:
                raise EOFError("the process ended")
            self.buffer += chunk
            if len(self.buffer) > MAX_MESSAGE:
                raise ValueError("value too large to hand over")
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer = bytearray(rest)
        return json.loads(line)


def sized(items):
    """The items as a list; ValueError when there are too many to hand over."""
    items = list(items)
    if len(items) > MAX_ITEMS:
        raise ValueError("value too large to hand over")
    return items


def encode(value, handle, depth=0):
    """A value as JSON; `handle(value)` gives the JSON of what is not plain."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if depth > 200:
        raise ValueError("nested too deep")
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        return {"i": hex(int(value))} if abs(int(value)) > 1 << 53 else int(value)
    if isinstance(value, float):
        return {"f": float.hex(float(value))}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return {"c": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {"b" if isinstance(value, bytes) else "ba": bytes(value).hex()}
    if isinstance(value, range):
        return {"r": [value.start, value.stop, value.step]}
    for tag, cls in (("l", list), ("t", tuple), ("s", set), ("fs", frozenset)):
        if isinstance(value, cls):
            return {tag: [encode(item, handle, depth + 1) for item in sized(value)]}
    if kind is type and value in TYPES:
        return {"ty": value.__name__}
    module, name = kind.__module__, kind.__name__
    if isinstance(value, dict):
        pairs = [[encode(k, handle, depth + 1), encode(v, handle, depth + 1)] for k, v in sized(value.items())]
        return {"d": pairs, "as": name if (module, name) in (("collections", "Counter"), ("collections", "OrderedDict")) else "dict"}
    if (module, name) == ("collections", "deque"):
        return {"dq": [encode(item, handle, depth + 1) for item in value]}
    if (module, name) in (("fractions", "Fraction"), ("decimal", "Decimal")):
        return {"n": name, "v": str(value)}
    if module == "datetime" and name in ("date", "datetime", "time", "timedelta"):
        return {"dt": name, "v": value.total_seconds() if name == "timedelta" else value.isoformat()}
    if (
        module.split(".")[0] == "numpy"
        and hasattr(value, "tolist")
        and getattr(getattr(value, "dtype", None), "kind", "") in tuple("biufc")
    ):
        return {"np": encode(value.tolist(), handle, depth + 1), "dtype": str(value.dtype), "scalar": getattr(value, "ndim", 0) == 0}
    return handle(value)


def decode(data, handle):
    """The value of a JSON; `handle(number)` gives what a handle stands for."""
    if not isinstance(data, dict):
        return data
    ((tag, body), *_) = data.items()
    if tag == "i":
        return int(body, 16)
    if tag == "f":
        return float.fromhex(body)
    if tag == "c":
        return complex(*map(float.fromhex, body))
    if tag == "b":
        return bytes.fromhex(body)
    if tag == "ba":
        return bytearray.fromhex(body)
    if tag == "r":
        return range(*body)
    if tag in ("l", "t", "s", "fs"):
        return {"l": list, "t": tuple, "s": set, "fs": frozenset}[tag](decode(item, handle) for item in body)
    if tag == "d":
        import collections

        made = {"dict": dict, "Counter": collections.Counter, "OrderedDict": collections.OrderedDict}[data["as"]]()
        for key, value in body:
            made[decode(key, handle)] = decode(value, handle)
        return made
    if tag == "dq":
        import collections

        return collections.deque(decode(item, handle) for item in body)
    if tag == "n":
        import decimal
        import fractions

        return (fractions.Fraction if body == "Fraction" else decimal.Decimal)(data["v"])
    if tag == "dt":
        import datetime

        return datetime.timedelta(seconds=data["v"]) if body == "timedelta" else getattr(datetime, body).fromisoformat(data["v"])
    if tag == "np":
        import numpy

        array = numpy.array(decode(body, handle), dtype=data["dtype"])
        return array[()] if data["scalar"] else array
    if tag == "ty":
        return next(cls for cls in TYPES if cls.__name__ == body)
    if tag == "@":
        return handle(body)
    raise ValueError(f"unknown tag {tag!r}")
