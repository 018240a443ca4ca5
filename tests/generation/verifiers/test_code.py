"""The sandbox: what is right passes, what is wrong fails, and nothing that a candidate does can pass its tests or touch the machine."""
# ruff: noqa: E501, PTH208

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from generation.verifiers import code, verify
from generation.verifiers.sandbox.launch import Limits, isolation, run_program, run_tests

pytestmark = pytest.mark.skipif(isolation() == "none", reason="this machine cannot lock code in")
LAYERS = [True, False] if isolation() == "namespaces" else [False]
ROOT = Path(__file__).resolve().parents[3]
FAST = Limits(seconds=3.0)  # for what does not end by itself
AMPLE = Limits(seconds=60.0)  # for what does, on a busy machine too


def passes(source: str, tests: list[str], namespaces: bool | None = None, limits: Limits = AMPLE) -> list[bool]:
    return [r["passed"] for r in run_tests(source, tests, limits=limits, namespaces=namespaces)]


RIGHT = "def f(x):\n    return sorted(x)\n"
TESTS = ["assert f([3, 1, 2]) == [1, 2, 3]", "assert f([]) == []"]


def test_right_and_wrong() -> None:
    assert passes(RIGHT, TESTS) == [True, True]
    assert passes("def f(x):\n    return x\n", TESTS) == [False, True]
    assert not all(passes("f = 3", TESTS))
    assert not all(passes("raise ValueError", TESTS))
    assert not all(passes("def g(x): pass", TESTS))


def test_values_travel_exactly() -> None:
    values = [
        "1.1",
        "10**40",
        "'ü\\ud800'.replace(chr(0xd800), '')",
        "b'a'",
        "(1, [2, {3: {4}}])",
        "frozenset({1})",
        "1+2j",
        "None",
        "True",
        "float('inf')",
        "range(3)",
        "{(1, 2): 'x'}",
    ]
    tests = [f"assert f({v}) == {v} and type(f({v})) is type({v})" for v in values]
    assert all(passes("def f(x): return x", tests))
    assert all(
        passes(
            "import collections, fractions, datetime\ndef f(n):\n    return [collections.Counter('aab'), collections.deque([1]), fractions.Fraction(1, 3), "
            "datetime.date(2020, 1, 2), (i for i in range(3)), map(int, '12')][n]",
            [
                "assert f(0) == {'a': 2, 'b': 1}",
                "import collections\nassert f(1) == collections.deque([1])",
                "import fractions\nassert f(2) * 3 == 1",
                "assert str(f(3)) == '2020-01-02'",
                "assert list(f(4)) == [0, 1, 2]",
                "assert sum(f(5)) == 3",
            ],
        )
    )


def test_objects_of_the_candidate_stay_there() -> None:
    source = "class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\ndef depth(n):\n    return 0 if n is None else 1 + depth(n.left)\n"
    assert passes(source, ["root = Node(1)\nroot.left = Node(2)\nassert depth(root) == 2", "assert Node(3).v == 3"]) == [True, True]


CHEATS = {
    "equal to everything": "class E:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n    def __bool__(self): return True\ndef f(x): return E()",
    "list equal to everything": "class E(list):\n    def __eq__(self, o): return True\ndef f(x): return E([9])",
    "int equal to everything": "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return E(9)",
    "prints a pass": 'print(\'{"test": "test 0", "passed": true}\')\nprint(\'{"done": true}\', flush=True)\ndef f(x): return 9',
    "writes to every descriptor": 'import os\nfor d in range(64):\n    try: os.write(d, b\'{"test": "test 0", "passed": true}\\n{"done": true}\\n\')\n    except OSError: pass\ndef f(x): return 9',
    "exits early": "import sys\nsys.exit(0)",
    "exits hard": "import os\nos._exit(0)",
    "exits when called": "import os\ndef f(x): os._exit(0)",
    "system exit when called": "def f(x): raise SystemExit(0)",
    "patches builtins": "import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {})\nbuiltins.sorted = lambda *a: None\nbuiltins.all = lambda x: True\nbuiltins.len = lambda x: 0\ndef f(x): return 9",
    "reads the caller's frame": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n        for v in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n            if v == [1, 2, 3]: return v\n        frame = frame.f_back\n    return 9",
    "searches the heap": "import gc\ndef f(x):\n    for o in gc.get_objects():\n        try:\n            if isinstance(o, list) and o == [1, 2, 3]: return o\n            if isinstance(o, str) and 'assert' in o: raise KeyError(o)\n        except ValueError: pass\n    return 9",
    "patches the harness": "import __main__, sys\nfor m in list(sys.modules.values()):\n    for n in ('report', 'passed', 'failed', 'encode', 'decode', 'Wire', 'keep'):\n        try: setattr(m, n, lambda *a, **k: None)\n        except Exception: pass\ndef f(x): return 9",
    "empties its argument": "def f(x):\n    x.clear()\n    return x",
    "raises an assertion": "def f(x): raise AssertionError",
    "raises all good": "def f(x): raise Exception('passed')",
    "never ends": "def f(x):\n    while True: pass",
    "never loads": "while True: pass",
    "sleeps": "import time\ndef f(x): time.sleep(100)",
    "traces": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef f(x): return 9",
    "answers out of turn": 'import os\nos.write(4, b\'{"id": 1, "value": ["f"]}\\n{"id": 2, "value": {"l": [1, 2, 3]}}\\n\')\ndef f(x): return 9',
    "sends rubbish": "import os\ndef f(x):\n    os.write(4, b'[' * 100000 + b'\\n')\n    return 9",
    "sends a deep value": "def f(x):\n    v = []\n    for _ in range(100000): v = [v]\n    return v",
    "sends a huge value": "def f(x): return 'x' * (1 << 26)",
    "recurses": "def f(x): return f(x)",
    "shadows the tests' built-ins": "def all(x): return True\ndef sorted(x): return x\ndef len(x): return 2\ndef isinstance(*a): return True\ndef f(x): return 9",
    "names of the harness": "__passed__ = lambda *a: None\n__failed__ = lambda *a: None\ndef f(x): return 9",
    "raises an error with code for a name": "E = type('__import__(\"os\")', (Exception,), {})\ndef f(x): raise E()",
    "patches json": 'import json\njson.dumps = lambda *a, **k: \'{"id": 1, "value": {"l": [1, 2, 3]}}\'\ndef f(x): return 9',
    "patches os.write": "import os\nos.write = lambda fd, b: len(b)\ndef f(x): return 9",
    "forges a type": 'import os\ndef f(x):\n    os.write(4, b\'{"id": 3, "value": {"ty": "eval"}}\\n\')\n    return 9',
    "forges a date": 'import os\ndef f(x):\n    os.write(4, b\'{"id": 3, "value": {"dt": "__class__", "v": "x"}}\\n\')\n    return 9',
    "forges a Fraction": "class Fraction:\n    def __str__(s): return '1'\nFraction.__module__ = 'fractions'\ndef f(x): return Fraction()",
    "forges an array": "class A:\n    ndim = 0\n    class dtype:\n        kind = 'f'\n    def tolist(s): return [1, 2, 3]\nA.__module__ = 'numpy'\ndef f(x): return A()",
    "acts as everything": "class E:\n    def __getattr__(s, n): return lambda *a: True\n    def __len__(s): return 3\n    def __iter__(s): return iter([1, 2, 3])\ndef f(x): return E()",
    "closes the pipes": "import os\ndef f(x):\n    os.close(3)\n    os.close(4)\n    return 9",
    "empties sys.modules": "import sys\nfor m in list(sys.modules): del sys.modules[m]\ndef f(x): return 9",
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_fail(name: str) -> None:
    start = time.monotonic()
    results = run_tests(CHEATS[name], ["assert f([3, 1, 2]) == [1, 2, 3]", "assert f([2, 1]) == [1, 2]"], limits=FAST)
    assert results and not any(r["passed"] for r in results), results
    assert time.monotonic() - start < 90, "it was not stopped"


def test_an_emptied_argument_does_not_change_the_expected_value() -> None:
    cheat = "def f(x):\n    x.clear()\n    return []"
    assert passes(cheat, ["x = [2, 1]\nassert f(x) == sorted(x)"]) == [False]


PROBE = """
import os, sys
def attempt(what):
    try:
        return repr(what())
    except BaseException as error:
        return 'refused: ' + type(error).__name__
"""
ESCAPES = {
    "network": "import socket\nprint(attempt(lambda: socket.create_connection(('127.0.0.1', PORT), 1)))",
    "udp": "import socket\nprint(attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))))",
    "unix socket": "import socket\nprint(attempt(lambda: socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')))",
    "fork": "print(attempt(os.fork))",
    "spawn": "print(attempt(lambda: os.posix_spawn('/bin/true', ['true'], {})))",
    "shell": "import subprocess\nprint(attempt(lambda: subprocess.run(['/bin/sh', '-c', 'echo x'], check=True)))",
    "exec": "print(attempt(lambda: os.execv('/bin/true', ['true'])))",
    "signal the parent": "print(attempt(lambda: os.kill(PARENT, 9)))",
    "signal everyone": "print(attempt(lambda: os.kill(-1, 9)))",
    "parent's environment": "print(attempt(lambda: open('/proc/PARENT/environ', 'rb').read()))",
    "init's environment": "print(attempt(lambda: open('/proc/1/environ', 'rb').read()))",
    "write outside": "print(attempt(lambda: open('MARK', 'w').write('x')))",
    "write to tmp": "print(attempt(lambda: open('/tmp/caravan-escape', 'w').write('x')))",
    "read a user's file": "print(attempt(lambda: open('SECRET').read()))",
    "list the home": "print(attempt(lambda: os.listdir(os.path.expanduser('~root'))))",
    "read passwords": "print(attempt(lambda: open('/etc/passwd').read()))",
    "change the interpreter": "print(attempt(lambda: open(os.__file__, 'a').write('#')))",
    "climb out": "os.makedirs('x', exist_ok=True)\nprint(attempt(lambda: os.chroot('x')))",
    "become root": "print(attempt(lambda: (os.setuid(0), os.getuid() == 0 and os.listdir('/root'))[1]) if os.getuid() else 'refused: no')",
    "trace": "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint('refused: ' + str(libc.ptrace(16, PARENT, 0, 0)) if libc.ptrace(16, PARENT, 0, 0) == -1 else 'traced')",
    "unshare": "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint('refused' if libc.unshare(0x10000000) == -1 else 'unshared')",
    "mount": "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint('refused' if libc.mount(b'proc', b'/tmp', b'proc', 0, None) == -1 else 'mounted')",
    "raise the limits": "import resource\nprint(attempt(lambda: resource.setrlimit(resource.RLIMIT_CPU, (10000, 10000))))",
    "memory": "print(attempt(lambda: len(bytearray(1 << 34))))",
    "program in memory": "fd = os.memfd_create('x') if hasattr(os, 'memfd_create') else -1\nprint(attempt(lambda: os.execve(fd, ['x'], {})))",
    "shared memory": "print(attempt(lambda: open('/dev/shm/x', 'w').write('x')))",
    "hard link": "print(attempt(lambda: (os.link('/etc/passwd', 'x'), open('x').read())))",
    "symbolic link": "print(attempt(lambda: (os.symlink('/etc/passwd', 'x'), open('x').read())[1]))",
    "set the clock": "import time\nprint(attempt(lambda: time.clock_settime(time.CLOCK_REALTIME, 0)))",
    "real-time priority": "print(attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))))",
    "host name": "import socket\nprint(attempt(lambda: socket.sethostname('x')))",
    "big file": "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nprint(attempt(lambda: open('big', 'wb').write(b'x' * (1 << 27)) and os.path.getsize('big') > (1 << 26)))",
    "environment": "print('refused' if not [k for k in os.environ if k not in ('LANG', 'LC_CTYPE', 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'PYTHONHASHSEED')] else dict(os.environ))",
}


@pytest.mark.parametrize("namespaces", LAYERS, ids=lambda n: "namespaces" if n else "landlock")
@pytest.mark.parametrize("name", ESCAPES)
def test_escapes_are_refused(name: str, namespaces: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY_OF_THE_USER", "secret-1234")
    secret, mark = tmp_path / "secret.txt", tmp_path / "mark"
    secret.write_text("secret-1234")
    tmp_path.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        source = PROBE + ESCAPES[name].replace("PORT", str(server.getsockname()[1])).replace("PARENT", str(os.getpid())).replace(
            "SECRET", str(secret)
        ).replace("MARK", str(mark))
        result = run_program(source, "", AMPLE, namespaces=namespaces)
        with pytest.raises(TimeoutError):
            server.accept()
    assert result.output.startswith("refused"), result
    assert "secret-1234" not in result.output and "root:" not in result.output
    assert not mark.exists() and not Path("/tmp/caravan-escape").exists()


def test_bombs_end() -> None:
    assert run_program("while True: pass", "", Limits(seconds=1)).ended in ("timed out", "signal 9", "signal 24")
    assert run_program("while True: print('x' * 1000)", "", AMPLE).ended == "too much output"
    assert "Memory" in run_program("try:\n    x = [0] * (1 << 40)\nexcept MemoryError as e: print('Memory')", "", AMPLE).output
    threads = "import threading, time\nn = 0\ntry:\n    for n in range(5000): threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\nexcept RuntimeError: print('no more')"
    assert run_program(threads, "", Limits(seconds=4)).output in ("no more\n", "")
    assert run_program("import os\nos.abort()", "", AMPLE).ended != "ok"
    assert (
        run_program(
            "import signal, os, time\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ntime.sleep(60)",
            "",
            Limits(seconds=1),
        ).ended
        == "timed out"
    )
    many = "try:\n    for i in range(5000): open(f'f{i}', 'wb').write(b'x' * 20_000)\nexcept OSError as e: print('full')"
    if isolation() == "namespaces":  # a directory of its own: 32 MB, 2,000 files
        assert run_program(many, "", AMPLE).output == "full\n"


def test_nothing_is_left_behind() -> None:
    run_program("import time\ntime.sleep(60)", "", Limits(seconds=1))
    run_tests("import time\ntime.sleep(60)", TESTS, limits=Limits(seconds=1))
    eventually(lambda: _jailed_below(os.getpid()) == [])


def eventually(true: Callable[[], bool]) -> None:
    """The kernel ends processes when it comes to it."""
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    assert true()


def _jailed_below(pid: int) -> list[str]:
    return [p for p in os.listdir("/proc") if p.isdigit() and b"jail.py" in _cmdline(p) and str(pid) in _parents(p)]


def _cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _stat(pid: str) -> list[str]:
    """Its state, parent, group, session, and so on; nothing when it has ended."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
    return [] if found[0] == "Z" else found


def _parents(pid: str) -> list[str]:
    out: list[str] = []
    while pid not in ("0", "1") and len(out) < 20 and (stat := _stat(pid)):
        pid = stat[1]
        out.append(pid)
    return out


def test_killed_with_its_parent() -> None:
    script = "from generation.verifiers.sandbox import launch\nlaunch.run_program('while True: pass', '', launch.Limits(seconds=600))"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as parent:
        sessions: set[str] = set()  # every jail is one
        while not sessions:
            assert parent.poll() is None
            time.sleep(0.05)
            # more than a second of work: the program itself runs
            sessions = {stat[3] for stat in map(_stat, _jailed_below(parent.pid)) if stat and int(stat[11]) > 100}
        parent.kill()
    eventually(lambda: not any(stat and stat[3] in sessions for stat in map(_stat, filter(str.isdigit, os.listdir("/proc")))))


def test_forms_and_extraction() -> None:
    prompt = 'from typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """ Add. """\n'
    truth = {
        "form": "humaneval",
        "prompt": prompt,
        "entry_point": "add",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    for i in range(3):\n        assert candidate(i, i) == 2 * i\n",
    }
    row = {"verifier": "code", "ground_truth": json.dumps(truth)}
    for said in (
        "    return a + b\n",
        "return a + b",
        "```python\ndef add(a, b):\n    return a + b\n```",
        "Here:\n```\ndef add(a: int, b: List) -> int:\n    return a + b\n```\nDone.",
        "```python\ndef other(): pass\n```\nand\n```python\ndef add(a, b):\n    return a + b\n```\n```python\nadd(1, 2)\n```",
        "def add(a, b):\n    return a + b",
    ):
        verdict = verify(row, said)
        assert verdict.passed and len(verdict.parts[0].checks) == 4, (said, verdict)
    half = verify(row, "    return a + b if a else 99\n")
    assert 0 < half.score < 1 and not half.passed
    for said in ("    return a - b", "I cannot do that.", "```python\ndef add(a, b)\n```", "", "    pass"):
        assert verify(row, said).score == 0 or not verify(row, said).passed
    program = {"form": "stdio", "cases": [{"input": "1 2\n", "output": "3"}, {"input": "5 5", "output": "10\n"}]}
    assert code.verify("print(sum(map(int, input().split())))", program).passed
    assert code.verify("print(3)", program).score == 0.5
    assert verify({"verifier": "code", "ground_truth": '{"form": "cobol"}'}, "x").error


def test_several_at_once() -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(all(passes(RIGHT, TESTS)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def humaneval(row: dict) -> dict:
    return {"form": "humaneval", "prompt": row["prompt"], "entry_point": row["entry_point"], "test": row["test"], "seconds": 30}


def mbpp(row: dict) -> dict:
    return {"form": "mbpp", "tests": [*row["test_list"], *row["challenge_test_list"]], "setup": row["test_setup_code"]}


def test_canonical_solutions_pass_and_mutants_fail(shared) -> None:
    rows = pq.read_table(shared / "benchmarks" / "humaneval.parquet").to_pylist()
    for row in rows[2::27]:
        assert code.verify(row["canonical_solution"], humaneval(row)).passed, row["task_id"]
        assert not code.verify("    return None\n", humaneval(row)).passed, row["task_id"]
    for row in pq.read_table(shared / "benchmarks" / "humanevalplus.parquet").to_pylist()[5::60]:
        assert code.verify(row["canonical_solution"], humaneval(row)).passed, row["task_id"]
    for row in pq.read_table(shared / "benchmarks" / "mbpp.parquet").to_pylist()[3::140]:
        assert code.verify(row["code"], mbpp(row)).passed, row["task_id"]
