"""Compiled functions: kept on disk for the next run, and not compiled at all while there is little to do.

    @kernel                     numba's njit, cached
    worth(scan_rows, size)(…)   the kernel, or below a certain amount of work the plain function it is made from

The tokeniser (decontam/ngrams.py) is compiled into the kernels of other files. numba looks at a function's own file alone to see whether
what it kept is stale, and a kernel with an old tokeniser inside would find nothing and say nothing; so ours look at both.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

SHARED = Path(__file__).with_name("ngrams.py")
PLAIN_WORK = 200_000
_stamp = hashlib.sha256(SHARED.read_bytes()).hexdigest()
_asked: Counter[Any] = Counter()


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`numba.njit` without the interpreter's lock and with a cache that goes stale when the function's file or the tokeniser changes."""
    if function is None:
        return lambda decorated: kernel(decorated, **options)
    made = njit(nogil=True, cache=True, **options)(function)
    file = made._cache._cache_file
    file._source_stamp = (file._source_stamp, _stamp)
    return made


def worth(kernel: Any, work: int) -> Callable[..., Any]:
    """The kernel, or the plain function it is made from while there is so little to do that compiling it (1 to 3 s) would take longer.

    Args:
        work: about how many turns its loops will take; what this process asked for before counts too.
    """
    _asked[kernel] += work
    return kernel if _asked[kernel] > PLAIN_WORK else kernel.py_func
