"""Compiled functions: kept on disk for the next run, and not compiled at all while there is little to do.

    @kernel                     numba's njit, cached
    worth(scan_rows, size)(…)   the kernel, or below a certain amount of work the plain functions it is made from

The tokeniser (decontam/ngrams.py) is compiled into the kernels of other files. numba looks at a function's own file alone to see whether
what it kept is stale, and a kernel with an old tokeniser inside would find nothing and say nothing; so ours look at both.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

from numba import njit

SHARED = Path(__file__).with_name("ngrams.py")
PLAIN_WORK = 200_000
_stamp = hashlib.sha256(SHARED.read_bytes()).hexdigest()
_asked: Counter[Any] = Counter()
_parts: set[int] = set()  # kernels live as long as the process


def kernel(function: Callable[..., Any] | None = None, part: bool = False, **options: Any) -> Any:
    """`numba.njit` without the interpreter's lock and with a cache that goes stale when the function's file or the tokeniser changes.

    Args:
        part: of a larger kernel: not compiled when that one is not. For functions whose numbers do not grow beyond 64 bits.
    """
    if function is None:
        return lambda decorated: kernel(decorated, part, **options)
    made = njit(nogil=True, cache=True, **options)(function)
    file = made._cache._cache_file
    file._source_stamp = (file._source_stamp, _stamp)
    if part:
        _parts.add(id(made))
    return made


def worth(kernel: Any, work: int) -> Callable[..., Any]:
    """The kernel, or the plain function it is made from while there is so little to do that compiling it (1 to 3 s) would take longer.

    Args:
        work: about how many turns its loops will take; what this process asked for before counts too.
    """
    _asked[kernel] += work
    return kernel if _asked[kernel] > PLAIN_WORK else _plain(kernel)


@functools.cache
def _plain(kernel: Any) -> Callable[..., Any]:
    """The function a kernel is made from; what it calls is plain too where it is a `part`."""
    function = kernel.py_func
    known = function.__globals__
    inner = {name: _plain(known[name]) for name in function.__code__.co_names if name in known and id(known[name]) in _parts}
    return FunctionType(function.__code__, {**known, **inner}, function.__name__, function.__defaults__, function.__closure__)
