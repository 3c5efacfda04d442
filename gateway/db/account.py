"""As whom Postgres runs: it refuses to run as root, and containers and CI are root."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gateway.db.postgres import PostgresError

NOBODY = 65534
_READ_ANYWHERE = "+dac_read_search"


@dataclass(frozen=True, slots=True)
class Account:
    """The `identity` (uid, gid) to change to before running a command, or a `prefix` to it that does it."""

    identity: tuple[int, int] | None = None
    prefix: tuple[str, ...] = ()

    @property
    def user(self) -> int | None:
        return self.identity[0] if self.identity else None

    @property
    def group(self) -> int | None:
        return self.identity[1] if self.identity else None

    @property
    def extra_groups(self) -> list[int] | None:
        return [] if self.identity else None


def choose(data_dir: Path, binaries: Path) -> Account:
    """Who runs the server on `data_dir`, which exists and is given to them.

    An ordinary user is himself. Root becomes the owner of `data_dir`, or nobody; where that user cannot
    walk to the binaries and the data (a clone in a 0700 folder) he keeps the one capability to pass closed
    folders. Raises `PostgresError` when neither works.
    """
    owner = data_dir.stat()
    if os.geteuid() != 0:
        if owner.st_uid != os.geteuid():
            raise PostgresError(
                f"{data_dir} belongs to user {owner.st_uid}, not to you ({os.geteuid()}): run as that user "
                "or as root, or give a database of your own (database.url_env)"
            )
        return Account()
    uid, gid = (owner.st_uid, owner.st_gid) if owner.st_uid else (NOBODY, NOBODY)
    if owner.st_uid == 0:
        _give(data_dir, uid, gid)
    probe = ["test", "-x", str(binaries / "postgres"), "-a", "-x", str(data_dir)]
    plain = Account((uid, gid))
    if _works(probe, plain):
        return plain
    setpriv = shutil.which("setpriv")
    if setpriv:
        # Verified with util-linux setpriv: without no_setuid_fixup the change of user drops the capability;
        # pdeathsig restores what the change of user clears (see gateway.supervise.leash).
        keeping = Account(
            prefix=(
                *(setpriv, "--reuid", str(uid), "--regid", str(gid), "--clear-groups"),
                *("--inh-caps", _READ_ANYWHERE, "--ambient-caps", _READ_ANYWHERE),
                *("--securebits", "+no_setuid_fixup", "--pdeathsig", "KILL"),
            )
        )
        if _works(probe, keeping):
            return keeping
    raise PostgresError(
        f"Postgres does not run as root, and user {uid} cannot reach {binaries} and {data_dir} "
        f"({'setpriv could not help' if setpriv else 'setpriv is not installed'}): run hotswap as an "
        "ordinary user, move it out of the closed folder, or give a database of your own (database.url_env)"
    )


def _works(command: list[str], account: Account) -> bool:
    try:
        done = subprocess.run(
            [*account.prefix, *command],
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
            check=False,
            capture_output=True,
        )
    except OSError:  # no right to change users here (a container without CAP_SETUID)
        return False
    return done.returncode == 0


def _give(folder: Path, uid: int, gid: int) -> None:
    os.chown(folder, uid, gid)
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(where, name), uid, gid, follow_symlinks=False)
