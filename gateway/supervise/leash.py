"""The leash: a tiny process between us and a command, which ends the command when we end.

    python -I -S leash.py RECORD LIFELINE REPORT SIGNAL GRACE UID:GID|- COMMAND...

LIFELINE is the read end of a pipe that our process holds open. When it closes (we stopped, died, or were
killed) or SIGTERM comes, the command gets SIGNAL, GRACE seconds, then SIGKILL with all its descendants. When
the command ends by itself its descendants are killed at once (vLLM leaves its EngineCore processes). The
leash is a child subreaper, so descendants that lose their parent, daemons too, become its own children and
none escapes. If the leash itself is killed, the kernel kills the command (PR_SET_PDEATHSIG); what then is
left is found by RECORD, which is written before the command runs: see `gateway.supervise.survivors`.

REPORT gets one line `pid N` when the command runs, or `error ERRNO TEXT` when it cannot, then `exit CODE`.

It imports only what starts in milliseconds: no typing, no dataclasses, no json.
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MARK = "HOTSWAP_LEASH"
"""Environment variable that every descendant inherits; its value is in the record."""
KILL_DEADLINE_S = 10.0


class Process:
    """One row of /proc: `start` is in clock ticks since boot, so (pid, start) names a process for good."""

    __slots__ = ("parent", "pid", "session", "start", "state")

    def __init__(self, pid: int, state: str, parent: int, session: int, start: int) -> None:
        self.pid, self.state, self.parent, self.session, self.start = pid, state, parent, session, start


def process(pid: int) -> Process | None:
    """The process with this pid, zombies included, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may hold anything, parentheses and spaces too.
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def processes() -> dict[int, Process]:
    """Every process, by pid."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {one.pid: one for one in found if one is not None}


def descendants(table: dict[int, Process], root: int) -> list[Process]:
    """The processes of `table` that descend from pid `root`, parents before children."""
    children: dict[int, list[Process]] = {}
    for one in table.values():
        children.setdefault(one.parent, []).append(one)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [one.pid for one in below]
    return found


def send(target: Process, number: int) -> None:
    """Send a signal to exactly this process; nothing when it is gone or its pid was taken by another."""
    try:
        # Some builds of Python (older kernel headers) lack pidfd; then the check alone must do.
        handle = os.pidfd_open(target.pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return
    try:
        now = process(target.pid)
        if now is None or now.start != target.start:
            return
        if handle is None:
            os.kill(target.pid, number)
        else:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        if handle is not None:
            os.close(handle)


def boot() -> str:
    """Names this boot and this pid namespace: outside them a pid means nothing."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def become(identity: str) -> None:
    if identity != "-":
        user, group = map(int, identity.split(":"))
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)


def spawn(command: list[str], identity: str) -> tuple[int, int, int]:
    """(pid, gate, failure) of the forked child, which runs `command` once a byte is written to `gate`.

    `failure` closes when the command runs, or yields why it does not.
    """
    gate_read, gate = os.pipe()
    failure, failure_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(gate_read)
        os.close(failure_write)
        return pid, gate, failure
    try:
        os.close(gate)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if number < signal.SIGRTMIN:
                signal.signal(number, signal.SIG_DFL)
        os.setsid()
        become(identity)
        # After the change of user, which clears it. The gate closes the race with a leash that died before.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.read(gate_read, 1):
            os.execvp(command[0], command)  # noqa: S606 - that is the point
    except OSError as error:
        os.write(failure_write, f"{error.errno} {error.strerror}".encode())
    finally:
        os._exit(127)


def write_record(path: str, child: Process, stop_signal: int, grace: float) -> None:
    me = process(os.getpid())
    log = os.fstat(2)
    assert me is not None
    text = (
        f'{{"boot": "{boot()}", "leash": [{me.pid}, {me.start}], "child": [{child.pid}, {child.start}], '
        f'"signal": {stop_signal}, "grace": {grace}, "log": [{log.st_dev}, {log.st_ino}], '
        f'"token": "{os.environ[MARK]}"}}\n'
    )
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def reap(pid: int, status: int | None) -> int | None:
    """Collect every child that ended; the exit code of `pid` once it is among them, else `status`."""
    while True:
        try:
            ended, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if ended == 0:
            return status
        if ended == pid:
            status = os.waitstatus_to_exitcode(raw)


def kill_all(pid: int, status: int | None) -> int | None:
    """SIGKILL every descendant until none is left; the exit code of `pid`."""
    deadline = time.monotonic() + KILL_DEADLINE_S
    while time.monotonic() < deadline:
        left = descendants(processes(), os.getpid())
        if not left:
            break
        for one in left:
            if one.state != "Z":
                send(one, signal.SIGKILL)
        time.sleep(0.005)
        status = reap(pid, status)
    return status


def tell(report: int, line: str) -> None:
    try:
        os.write(report, line.encode() + b"\n")
    except BrokenPipeError:
        return  # nobody listens any more: the lifeline says so too


def main(argv: list[str]) -> int:
    record, command = argv[0], argv[6:]
    lifeline, report, stop_signal = int(argv[1]), int(argv[2]), int(argv[3])
    grace, identity = float(argv[4]), argv[5]
    for inherited in (lifeline, report):
        os.set_inheritable(inherited, False)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)

    pid, gate, failure = spawn(command, identity)
    child = process(pid)
    assert child is not None
    write_record(record, child, stop_signal, grace)
    os.write(gate, b"g")
    os.close(gate)
    why = os.read(failure, 400).decode()
    os.close(failure)
    tell(report, f"error {why}" if why else f"pid {pid}")

    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(wake, select.POLLIN)
    status: int | None = None
    deadline: float | None = None
    while (status := reap(pid, status)) is None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        stop = False
        for fd, _ in poll.poll(None if left is None else left * 1000 + 1):
            if fd == lifeline:
                poll.unregister(lifeline)
                stop = True
            else:
                stop |= signal.SIGTERM in os.read(wake, 4096)
        if stop and deadline is None:
            deadline = time.monotonic() + grace
            send(child, stop_signal)
            send(child, signal.SIGCONT)
    status = kill_all(pid, status)
    if descendants(processes(), os.getpid()):
        status = -signal.SIGKILL if status is None else status  # unkillable: the record stays for the sweep
    else:
        os.unlink(record)
    assert status is not None
    tell(report, f"exit {status}")
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
