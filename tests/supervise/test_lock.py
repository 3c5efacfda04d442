"""One run per state directory."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.supervise import Lock, Locked
from tests.supervise.family import wait_until

HOLD = """
import sys, time
from pathlib import Path
from gateway.supervise import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(1000)
"""


def test_a_second_one_is_refused_and_told_by_whom_and_what_to_do(tmp_path: Path) -> None:
    with Lock(tmp_path), pytest.raises(Locked, match=f"process {os.getpid()}; .*hotswap down") as refusal:
        Lock(tmp_path).acquire()
    assert os.getpid() == refusal.value.pid


def test_it_is_free_again_after_release(tmp_path: Path) -> None:
    with Lock(tmp_path):
        pass
    with Lock(tmp_path):
        assert os.getpid() == Lock(tmp_path).holder()
    assert Lock(tmp_path).holder() is None


def test_it_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert b"held\n" == holder.stdout.readline()
        assert holder.pid == Lock(tmp_path).holder()
        holder.kill()
    wait_until(lambda: Lock(tmp_path).holder() is None)
    with Lock(tmp_path):
        pass


def test_somebody_who_only_asks_does_not_turn_a_start_away(tmp_path: Path) -> None:
    with Lock(tmp_path) as lock:
        path = lock.path
    asker = os.open(path, os.O_RDWR)
    fcntl.flock(asker, fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [asker]).start()
    with Lock(tmp_path):
        assert os.getpid() == Lock(tmp_path).holder()
