"""The inside of the sandbox: a fresh interpreter locks itself in, then runs a role (candidate.py, judge.py or program.py).

In: argv[1], JSON {role files, root, binds, limits, namespaces}. Out: whatever the role writes to its pipes. Never imported: launch.py
starts it as `python -I -S jail.py ...`. Four layers, each on its own enough for most escapes:

    namespaces  own file system (a tmpfs with the interpreter mounted read-only), no network, own process ids, no /proc; needs root or
                user namespaces
    Landlock    reads only under the interpreter, writes only in the working directory; Linux 5.13+
    seccomp     no sockets, no fork, no exec, no signals to others, no tracing, no mounts; x86-64 and arm64
    limits      CPU, memory, file size, open files, threads; user nobody when started by root
"""
# ruff: noqa: PTH103, PTH112, PTH114, PTH115, PTH116, PTH119, PTH120, PTH123, PTH211
# mypy: ignore-errors
# Plain os calls: pathlib would cost a tenth of the start of a process that starts twice per task.

import ctypes
import json
import os
import resource
import signal
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
NOBODY = 65534


def syscall(*args):
    """A raw system call; raises OSError on failure."""
    result = LIBC.syscall(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mount(source, target, kind, flags, data=None):
    """mount(2)."""
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    if LIBC.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


def enter_namespaces(root, binds):
    """Own mounts, network, process ids and IPC; then chroot into a tmpfs that holds nothing but the interpreter, read-only."""
    uid, gid = os.getuid(), os.getgid()
    flags = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET | (NEWUSER if uid else 0)
    if LIBC.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount(None, "/", None, REC | PRIVATE)
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=64m,nr_inodes=20k,mode=755")
    for path in binds:
        target = root + path
        if os.path.islink(path):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if not os.path.lexists(target):
                os.symlink(os.readlink(path), target)
            continue
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "w").close()
        mount(path, target, None, BIND | REC)
        held = os.statvfs(target).f_flag & (NOSUID | 8 | 1024 | 2048 | 4096)
        keep = (8 if held & 8 else 0) | (NODEV if os.statvfs(target).f_flag & 4 else 0)
        mount(None, target, None, BIND | REMOUNT | RDONLY | NOSUID | keep)
    os.makedirs(root + "/caravan-work", exist_ok=True)
    mount(
        "tmpfs",
        root + "/caravan-work",
        "tmpfs",
        NOSUID | NODEV,
        f"size=32m,nr_inodes=2k,mode=700,uid={uid or NOBODY},gid={gid if uid else NOBODY}",
    )
    mount(None, root, None, BIND | REMOUNT | RDONLY | NOSUID)
    os.chroot(root)
    os.chdir("/caravan-work")


def landlock(readable, listable, writable):
    """Deny the whole file system but these directories (and TCP where the kernel can); False where the kernel has no Landlock."""
    try:
        version = syscall(444, None, 0, 1)
    except OSError:
        return False
    everything = (1 << 13) - 1 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    network = 3 if version >= 4 else 0
    scoped = 3 if version >= 6 else 0  # abstract sockets and signals
    attributes = struct.pack("QQQ", everything, network, scoped)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = syscall(444, attributes, len(attributes), 0)
    for paths, rights in ((readable, 1 << 2 | 1 << 3), (listable, 1 << 3), (writable, everything & ~1)):
        for path in paths:
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            here = rights if os.path.isdir(path) else 1 << 2 | (1 << 1 if path == "/dev/null" else 0)
            syscall(445, ruleset, 1, struct.pack("=QI", here, place), 0)
            os.close(place)
    syscall(446, ruleset, 0)
    os.close(ruleset)
    return True


# names of the system calls that are refused, with their numbers on x86-64 and arm64 (None: does not exist there)
DENIED = {
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "accept4": (288, 242),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "personality": (135, 92),
    "quotactl": (179, 60),
    "acct": (163, 89),
}


def seccomp():
    """Refuse the calls above with EPERM, new processes (threads are allowed) too; False on another machine type."""
    machine = os.uname().machine
    if machine not in ("x86_64", "aarch64"):
        return False
    column = 0 if machine == "x86_64" else 1
    arch = 0xC000003E if column == 0 else 0xC00000B7
    clone = 56 if column == 0 else 220
    numbers = [pair[column] for pair in DENIED.values() if pair[column] is not None]

    def op(code, k, true=0, false=0):
        return struct.pack("HBBI", code, true, false, k)

    load, equal, bits, at_least, answer = 0x20, 0x15, 0x45, 0x35, 0x06
    allow, refuse, missing, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    program = [op(load, 4), op(equal, arch, 1, 0), op(answer, kill), op(load, 0)]
    if column == 0:
        program += [op(at_least, 0x40000000, 0, 1), op(answer, kill)]
    for number in numbers:
        program += [op(equal, number, 0, 1), op(answer, refuse)]
    program += [op(equal, 435, 0, 1), op(answer, missing)]  # clone3: glibc then uses clone, whose flags can be read
    program += [op(equal, clone, 0, 4), op(load, 16), op(bits, 0x10000, 1, 0), op(answer, refuse), op(answer, allow), op(answer, allow)]
    code = b"".join(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if LIBC.prctl(22, 2, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return True


def limit(limits):
    """CPU seconds, bytes of memory and of files, open files, threads; no core dumps."""
    for name, value in (
        ("RLIMIT_CPU", int(limits["seconds"]) + 1),
        ("RLIMIT_AS", limits["memory"]),
        ("RLIMIT_FSIZE", limits["files"]),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_NPROC", 128),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_STACK", 64 << 20),
    ):
        hard = resource.getrlimit(getattr(resource, name))[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (value, value))


def reachable(path):
    """Can nobody walk to this path?"""
    parts = path.strip("/").split("/")
    return all(os.stat("/" + "/".join(parts[: i + 1])).st_mode & 1 for i in range(len(parts)))


def drop(interpreter):
    """Become nobody, with no groups, no capabilities and no way to get any.

    An interpreter that only root can reach (under /root, without namespaces) keeps its user, but no capability.
    """
    if os.getuid() == 0 and reachable(interpreter):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    LIBC.prctl(38, 1, 0, 0, 0)  # no new privileges
    LIBC.prctl(4, 0, 0, 0, 0)  # not dumpable: not even readable by processes of the same user
    for capability in range(64):
        LIBC.prctl(24, capability, 0, 0, 0)
    header, nothing = struct.pack("II", 0x20080522, 0), struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)
    LIBC.capset(header, nothing)


def place_descriptors(wanted):
    """Move the inherited descriptors to their numbers: {"3": 17, ...}."""
    import fcntl

    high = {int(number): fcntl.fcntl(inherited, fcntl.F_DUPFD, 100) for number, inherited in wanted.items()}
    os.closerange(3, 100)
    for number, descriptor in high.items():
        os.dup2(descriptor, number)
        os.close(descriptor)


def stay_with_parent():
    """Be killed when the process that started this one goes."""
    LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)


def main():
    """Lock in, then run the role's source."""
    config = json.loads(sys.argv[1])
    sources = []
    for path in config["sources"]:
        with open(path, encoding="utf-8") as file:
            sources.append((path, file.read()))
    stay_with_parent()
    place_descriptors(config["descriptors"])
    nowhere = os.open("/dev/null", os.O_RDWR)
    namespaces = config["namespaces"]
    if namespaces:
        enter_namespaces(config["root"], config["binds"])
        child = os.fork()
        if child:
            os.closerange(0, 4096)
            _, status = os.waitpid(child, 0)
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
        stay_with_parent()
    else:
        os.chdir(config["root"])
        if os.getuid() == 0 and reachable(config["binds"][0]):
            os.chown(config["root"], NOBODY, NOBODY)
    __import__("encodings.idna")  # what Python imports by itself later must be loaded before the files are out of reach
    limit(config["limits"])
    drop(config["binds"][0])
    stay_with_parent()
    locked = {
        "namespaces": namespaces,
        "landlock": landlock(config["binds"], config["paths"], ["/caravan-work" if namespaces else config["root"]]),
        "seccomp": seccomp(),
    }
    if not (locked["namespaces"] or (locked["landlock"] and locked["seccomp"])) and not config["weak"]:
        os._exit(97)
    sys.path[:] = [path for path in sys.path if path] + config["paths"]
    sys.argv = ["program"]
    scope = {"__name__": "__sandbox__", "LOCKED": locked}
    for path, source in sources:
        exec(compile(source, os.path.basename(path), "exec"), scope)
    os.write(6, json.dumps(locked).encode() + b"\n")
    os.close(6)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    scope["main"]()
    sys.stdout.flush()
    os._exit(0)


main()
