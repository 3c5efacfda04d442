"""Files are in the store whole or not at all, and under the name of what they are."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.archive import CONFIG, WEIGHTS
from adapters.errors import Refused, StoreFull, Unknown
from adapters.store import Store


def stage(folder: Path, config: str = '{"r": 8}', weights: bytes = b"weights") -> Path:
    (folder / CONFIG).write_text(config)
    (folder / WEIGHTS).write_bytes(weights)
    return folder


def put(store: Store, config: str = '{"r": 8}', weights: bytes = b"weights") -> str:
    with store.staging() as staged:
        return store.commit(stage(staged, config, weights))


def staged_now(store: Store) -> list[str]:
    return [path.name for path in store._staging.iterdir() if path.name != ".lock"]


def test_the_digest_is_the_documented_formula(store: Store) -> None:
    config, weights = b'{"a":"\\u00e9","r":8}', b"weights"
    text = b"hotswap-adapter-1\n"
    text += b"adapter_config.json\0" + len(config).to_bytes(8, "big") + config
    text += b"adapter_model.safetensors\0" + len(weights).to_bytes(8, "big") + weights
    assert hashlib.sha256(text).hexdigest() == put(store, '{ "r": 8, "a": "é" }')


def test_the_config_is_stored_in_the_form_that_was_hashed(store: Store) -> None:
    assert b'{"a":1,"r":8}' == (store.path(put(store, '{"r": 8,\n "a": 1}')) / CONFIG).read_bytes()


def test_configs_that_differ_in_order_and_spaces_are_one_content(store: Store) -> None:
    assert put(store, '{"r": 8, "a": 1}') == put(store, '{"a":1,"r":8}')


@pytest.mark.parametrize(("config", "weights"), [('{"r": 9}', b"weights"), ('{"r": 8}', b"Weights")])
def test_any_difference_is_another_digest(store: Store, config: str, weights: bytes) -> None:
    assert put(store) != put(store, config, weights)


def test_only_what_is_in_the_digest_is_kept(store: Store) -> None:
    with store.staging() as staged:
        (stage(staged) / "hotswap.json").write_text("{}")
        digest = store.commit(staged)
    assert {CONFIG, WEIGHTS} == {path.name for path in store.path(digest).iterdir()}


def test_stored_files_and_their_folder_are_read_only(store: Store) -> None:
    folder = store.path(put(store))
    assert [0o555, 0o444, 0o444] == [p.stat().st_mode & 0o777 for p in (folder, *folder.iterdir())]


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store(Path("here")).path("0" * 64).is_absolute()


def test_used_bytes_count_each_content_once(store: Store) -> None:
    put(store)
    put(store)
    assert len(b'{"r":8}') + len(b"weights") == store.used_bytes()


def test_a_deleted_digest_is_gone_and_deleting_it_again_is_no_error(store: Store) -> None:
    digest = put(store)
    store.delete(digest)
    store.delete(digest)
    assert [] == store.digests()
    assert [] == staged_now(store)


@pytest.mark.parametrize("digest", ["../../etc", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_digest_has_no_path(store: Store, digest: str) -> None:
    with pytest.raises(Unknown):
        store.path(digest)


def test_an_upload_that_fails_leaves_nothing_in_staging(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.staging() as staged:
        stage(staged)
        raise ZeroDivisionError
    assert [] == staged_now(store)


def test_weights_that_are_a_link_are_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with store.staging() as staged:
        stage(staged)
        (staged / WEIGHTS).unlink()
        (staged / WEIGHTS).symlink_to(tmp_path / "secret")
        with pytest.raises(Refused):
            store.commit(staged)


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_full_disk_is_said_so_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StoreFull):
        put(store)
    assert ([], []) == (store.digests(), staged_now(store))


@pytest.mark.parametrize("module", [os, Path])
def test_any_other_trouble_with_the_disk_is_told_as_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(module, "fsync" if module is os else "rename", broken)
        put(store)
    assert ([], []) == (store.digests(), staged_now(store))


def test_content_that_was_damaged_in_the_store_is_healed_by_adding_it_again(store: Store) -> None:
    folder = store.path(put(store))
    folder.chmod(0o755)
    (folder / WEIGHTS).unlink()
    put(store)
    assert b"weights" == (folder / WEIGHTS).read_bytes()


def test_a_second_store_leaves_a_running_upload_alone(store: Store, tmp_path: Path) -> None:
    with store.staging() as staged:
        stage(staged)
        other = Store(tmp_path / "store")
        digest = store.commit(staged)
    assert other.has(digest)


def test_a_delete_beside_a_running_upload_of_the_same_content_harms_neither(store: Store) -> None:
    digest = put(store)
    with store.staging() as staged:
        sealed = store.seal(stage(staged))
        store.delete(digest)
        store.publish(sealed)
    assert json.loads((store.path(digest) / CONFIG).read_bytes()) == {"r": 8}


@pytest.mark.parametrize("when", ["before the files are written", "after"])
def test_what_a_killed_upload_left_is_swept_at_the_next_start(
    tmp_path: Path, when: str, adapter: Callable[..., Path]
) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from adapters.store import Store\n"
        "with Store(Path(sys.argv[1])).staging() as staged:\n"
        "    if sys.argv[2] == 'after': (staged / 'adapter_model.safetensors').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "store"), when], check=False)
    assert killed.returncode == -9
    assert 2 == len(list((tmp_path / "store" / "staging").iterdir()))  # the lock and what was left
    assert [] == staged_now(Store(tmp_path / "store"))
