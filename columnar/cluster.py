"""The engine `ray`: blocks as tasks and actors of Ray Data. The only file that imports Ray (extra `ray`).

What travels through Ray are descriptions of blocks and short reports; rows and results lie in files that driver and workers share (one
machine, or a network file system). A worker puts the result of a block beside its final name and renames it, and only then reports: a
block is done or not, whoever is killed when, and a run that goes on finds the done ones. Ray Data deals blocks out, starts a killed
worker again with the block it had, and gives reports in the order of the blocks. Nothing here schedules, retries or moves data.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

import columnar
from columnar.cli import say
from columnar.cluster_errors import failure, lost
from columnar.engine import Block, Held, Result
from columnar.errors import CaravanError, ConfigError, InputError
from columnar.ingest_on import FileBlock
from columnar.store import file_sha256, peak_rss_mb, whole_file

# Blocks for each worker from which on an actor, which costs 4 s of CPU to start, keeps what is heavy. Tasks keep it as well (`_read`), in
# processes that go on from stage to stage; only Ray may end those when they idle.
ACTORS_FROM = 1000
TRIES = 3  # a block whose worker dies so often is to blame, not the worker
CONNECT = 5.0  # seconds for a connection to the head of a cluster
SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # the first frame that each side of an HTTP/2 connection sends
STORE = 256 << 20  # bytes of Ray's object store on a cluster started here: descriptions and reports are small
ONE_THREAD = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")  # a worker has one core; read when a library is imported
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
PACKAGES = ("columnar", "curation", "decontam", "generation")  # what a worker runs
RAY = {  # its settings, unless the environment has others
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of its own statistics, when their keeper is killed; ours come with the results
    "RAY_task_oom_retries": "5",  # of a task whose worker is ended for want of memory; for ever, by default
}
SPACE = "caravan"  # the namespace of shared objects
REPORT = pa.schema(
    [("problem", pa.binary()), ("tries", pa.int32()), ("worker", pa.string()), ("peak", pa.int64()), ("seconds", pa.float64())]
)


class Cluster:
    """A Ray cluster: the one at `address`, or that of RAY_ADDRESS, or one started here for as long as this lives."""

    remote = True

    def __init__(self, address: str | None) -> None:
        self._started = _connect(address or os.environ.get("RAY_ADDRESS"))
        self.blocks = self.kept = self.repeated = 0
        self.spent: dict[str, float] = {}  # worker -> CPU seconds
        self.peaks: dict[str, int] = {}  # worker -> MB

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        import ray

        if kind is None:
            say(self.figures())
        if self._started:
            ray.shutdown()

    def figures(self) -> str:
        """What was done, and what memory it took."""
        peaks = sorted(self.peaks.values(), reverse=True)
        told = ", ".join(f"{mb:,}" for mb in peaks[:8]) + (f" … {peaks[-1]:,}" if len(peaks) > 8 else "")
        done = f"{self.blocks:,} blocks done, {self.kept:,} were done before, {self.repeated:,} begun again after a worker was lost"
        spent = f"{sum(self.spent.values()):,.1f} s of CPU in {len(peaks)} workers"
        return f"ray: {done}; {spent}; peak memory {peak_rss_mb():,} MB here, {told or 0} MB in the workers"

    def width(self, gpus: float = 0) -> int:
        """See `Engine.width`: a core each, and the GPUs."""
        import ray

        there = ray.cluster_resources()
        cores = int(there.get("CPU", 1))
        if gpus > there.get("GPU", 0):
            raise ConfigError(
                f"--engine ray: a worker wants {gpus:g} GPUs (tensor_parallel_size), the cluster has {there.get('GPU', 0):g}",
                "add machines with GPUs, or ask a vLLM server that runs elsewhere: backend: openai with base_url",
            )
        return min(cores, int(there["GPU"] // gpus)) if gpus else cores

    @contextlib.contextmanager
    def shared(self, make: Callable[[], Held]) -> Iterator[Held]:
        """See `Engine.shared`: an actor on this machine holds it, and answers calls one by one."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        name = f"caravan-{os.getpid()}-{id(make)}-{time.monotonic_ns()}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"name": name, "namespace": SPACE, "num_cpus": 0, "scheduling_strategy": here}
        owner: Any = ray.remote(_Owner).options(**options).remote(ray.cloudpickle.dumps(make))
        try:
            yield cast(Held, Shared(name))
        finally:
            ray.kill(owner)

    def map(
        self,
        work: Callable[[Block], Result],
        blocks: Sequence[Block],
        places: Sequence[Path],
        *,
        threads: int = 1,
        held: bool = False,
        gpus: float = 0,
    ) -> Iterator[Result]:
        """See `Engine.map`."""
        import ray

        places = [place.absolute() for place in places]
        todo = [number for number, place in enumerate(places) if not place.is_file()]
        self.kept += len(blocks) - len(todo)
        reports: Iterator[dict[str, Any]] = iter(())
        if todo:
            at = places[todo[-1]].with_name("work.pickle")
            with whole_file(at) as temporary:
                temporary.write_bytes(pickle.dumps((str(Path.cwd()), release(), ray.cloudpickle.dumps(work))))
            items = []
            for number in todo:
                places[number].parent.mkdir(parents=True, exist_ok=True)
                _tries(places[number]).unlink(missing_ok=True)
                items.append({"block": pickle.dumps(blocks[number]), "place": str(places[number])})
            reports = self._reports(items, at, held, gpus)
        missing, bad = set(todo), []
        for number, place in enumerate(places):
            if number in missing:
                report = next(reports)
                if number == todo[-1]:
                    next(reports, None)  # lets Ray end the execution
                if report["problem"] is not None:
                    bad.append((str(blocks[number]), pickle.loads(report["problem"])))
            if not bad:  # otherwise the rest is finished for the next run
                yield pickle.loads(place.read_bytes())
        if bad:
            raise failure(bad, len(blocks), files=isinstance(blocks[0], FileBlock))

    def _reports(self, items: list[dict[str, Any]], work: Path, held: bool, gpus: float) -> Iterator[dict[str, Any]]:
        """What workers say of each block, in order."""
        import ray
        import ray.data

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        stamp = work.stat().st_mtime_ns
        how: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "num_cpus": 1}
        dealt = ray.data.from_items(items, override_num_blocks=len(items))
        size = max(1, self.width(gpus))
        if held and (gpus or len(items) > ACTORS_FROM * size):
            actors = ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2)
            done = dealt.map_batches(_Holding, fn_constructor_args=(str(work), stamp), compute=actors, num_gpus=gpus or None, **how)
        else:
            done = dealt.map_batches(partial(_work_on, work=str(work), stamp=stamp), **how)
        try:
            for table in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for report in pa.table(table).to_pylist():
                    self.blocks += report["problem"] is None
                    self.repeated += report["tries"] > 1
                    self.spent[report["worker"]] = self.spent.get(report["worker"], 0.0) + report["seconds"]
                    self.peaks[report["worker"]] = max(self.peaks.get(report["worker"], 0), report["peak"])
                    yield report
        except (ray.exceptions.RayError, ModuleNotFoundError) as error:
            raise lost(error) from error


class _Owner:
    """Holds a shared object."""

    def __init__(self, make: bytes) -> None:
        self.held = pickle.loads(make)()

    def call(self, name: str, given: tuple[Any, ...]) -> Any:
        return getattr(self.held, name)(*given)


class Shared:
    """A shared object as its users see it, in whatever process: its methods, called where it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._owner: Any = None

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        import ray

        self._owner = self._owner or ray.get_actor(self._name, namespace=SPACE)
        owner = self._owner
        return lambda *given: ray.get(owner.call.remote(method, given))

    def __reduce__(self) -> tuple[Any, ...]:
        return Shared, (self._name,)


class _Holding:
    """An actor: the work stays in it from block to block."""

    def __init__(self, work: str, stamp: int) -> None:
        self.work = _read(work, stamp)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([_one(self.work, item) for item in batch.to_pylist()], REPORT)


def _work_on(batch: pa.Table, work: str, stamp: int) -> pa.Table:
    """A task: the work is read once a process."""
    return pa.Table.from_pylist([_one(_read(work, stamp), item) for item in batch.to_pylist()], REPORT)


@lru_cache(maxsize=1)
def _read(work: str, stamp: int) -> Callable[[Any], Any]:
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    pa.set_cpu_count(1)
    from ray import cloudpickle

    place, wanted, pickled = pickle.loads(Path(work).read_bytes())
    if release() != wanted:
        return partial(_refuse, f"the worker on {socket.gethostname()} runs {release()}, this is {wanted}")
    with contextlib.suppress(OSError):  # relative paths and modules of the user's own are found as the driver finds them
        os.chdir(place)
        sys.path.append(place)
    made: Callable[[Any], Any] = cloudpickle.loads(pickled)
    return made


def _refuse(why: str, block: object) -> None:
    raise ConfigError(f"--engine ray: {why}", "install the same version of this package on all machines of the cluster")


@cache
def release() -> str:
    """What code this process runs: its version, and a hash of its source files, since two commits of one version are not the same."""
    home, found = Path(columnar.__file__).parents[1], hashlib.sha256()
    for file in sorted(file for package in PACKAGES for file in (home / package).rglob("*.py")):
        found.update(f"{file.relative_to(home)} {file_sha256(file)}\n".encode())
    return f"version {version('caravan')} ({found.hexdigest()[:12]})"


def _one(work: Callable[[Any], Any], item: dict[str, Any]) -> dict[str, Any]:
    """Work on one block unless its result is there. A problem of its own is told, not raised: Ray repeats only what is lost."""
    place = Path(item["place"])
    worker = f"{socket.gethostname()} {os.getpid()}"
    with _tries(place).open("a") as file:
        file.write(worker + "\n")
    tries = len(_tries(place).read_text().splitlines())
    began, problem = _cpu_seconds(), None
    if not place.is_file():
        try:
            if tries > TRIES:
                raise MemoryError(f"its worker was killed {TRIES} times, which is what a system does that runs out of memory")
            made = work(pickle.loads(item["block"]))
            with whole_file(place) as temporary:
                temporary.write_bytes(pickle.dumps(made, protocol=5))
        except Exception as error:
            more = "give the workers more memory, then run the same command again" if isinstance(error, MemoryError) else None
            kept = error if isinstance(error, CaravanError) else CaravanError(f"{type(error).__name__}: {error}", more)
            problem = pickle.dumps(kept)
    return {"problem": problem, "tries": tries, "worker": worker, "peak": peak_rss_mb(), "seconds": _cpu_seconds() - began}


def _tries(place: Path) -> Path:
    return place.with_suffix(".tries")


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _connect(address: str | None) -> bool:
    """Join the cluster at this address, or start one here; True when this process has started or joined it and must leave it.

    Raises:
        ConfigError: Ray is not installed.
        InputError: nobody answers there.
    """
    for name, value in RAY.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError("--engine ray: Ray is not installed here", "in the folder of the project: pip install '.[ray]'") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it has to say comes as an error, once
    if ray.is_initialized():
        return False
    if address:
        place = address.removeprefix("ray://")
        try:
            if place != "auto":  # which Ray looks up on this machine
                _knock(place)
            ray.init(address=place, **QUIET)
        except (OSError, ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--engine ray: no Ray cluster at {place}: {error}",
                "give the address of its head as `ray status` has it there, and run this on a machine of the cluster; if it wants a token"
                " (newer versions of Ray do by themselves): export RAY_AUTH_MODE=token; --engine ray starts a cluster on this machine",
            ) from error
        return True
    start()
    return True


def _knock(place: str) -> None:
    """Does something that speaks as Ray's head does (gRPC, so HTTP/2) listen there? Ray itself would try for minutes.

    Raises:
        OSError: nobody answers, or not so.
    """
    host, _, port = place.partition(":")
    with socket.create_connection((host, int(port or 6379)), CONNECT) as door:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        door.settimeout(CONNECT)
        door.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS)
        try:
            answer = door.recv(9)
        except TimeoutError as error:
            raise OSError("something listens there, and says nothing") from error
    if answer[3:4] != SETTINGS[3:4]:
        raise OSError("something else than Ray listens there")


def start(workers: int | None = None) -> None:
    """A cluster on this machine; None: a worker for each core."""
    import ray

    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # its workers inherit them
    try:
        ray.init(num_cpus=workers, include_dashboard=False, object_store_memory=STORE, **QUIET)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
