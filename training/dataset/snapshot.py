"""Datasets on disk: frozen folders named by their content.

    <state_dir>/datasets/support/3f9c2ab71e04/
        train.jsonl, validation.jsonl       rows, as `training.rows` reads them
        preferences[.validation].jsonl      pairs: {"prompt": [...], "chosen": [...], "rejected": [...]}
        thumbs[.validation].jsonl           {"prompt": [...], "completion": [...], "label": true | false}
        origins.jsonl                       where each row of each file came from, a line a row
        dataset.json                        the manifest

The digest is the sha256 over the names and sha256s of all files but the manifest, so it depends on what can
be learned and where that came from, and not on when it was built. Files are read-only. The one thing that
changes a snapshot is forgetting: `scrub` takes rows out, the name stays, and the manifest says that it was
done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.version import NAME, SHORT, Reference
from training.dataset.candidate import line
from training.dataset.plan import DatasetError

TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
PREFERENCES, PREFERENCES_VALIDATION = "preferences.jsonl", "preferences.validation.jsonl"
THUMBS, THUMBS_VALIDATION = "thumbs.jsonl", "thumbs.validation.jsonl"
ORIGINS, MANIFEST = "origins.jsonl", "dataset.json"
ALWAYS = (TRAIN, VALIDATION, ORIGINS)
LATEST = "latest"
ANSWERS = ".answers"
"""In the shelf's folder: what writers and judges answered to earlier builds (`training.dataset.endpoint`)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One frozen dataset. `digest` has 64 hex digits."""

    name: str
    digest: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """`support@3f9c2ab71e04`."""
        return f"{self.name}@{self.digest[:SHORT]}"

    @property
    def rows(self) -> Mapping[str, int]:
        """File -> how many."""
        return {file: about["rows"] for file, about in self.manifest["files"].items() if file != ORIGINS}

    @property
    def scrubbed(self) -> int:
        """Rows that were forgotten, and are not there any more."""
        return int(self.manifest.get("scrubbed", {}).get("rows", 0))

    def file(self, name: str) -> Path:
        return self.folder / name

    def origins(self) -> Iterator[dict[str, Any]]:
        with self.file(ORIGINS).open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)

    def holds(self, exchanges: Collection[str]) -> int:
        """How many rows came from one of these request ids, or were generated from it."""
        unwanted = set(exchanges)
        return sum(not unwanted.isdisjoint(_from(origin)) for origin in self.origins())

    def check(self) -> None:
        """Raises `DatasetError` when a file is not what it was when it was frozen, or scrubbed."""
        for name, about in self.manifest["files"].items():
            try:
                found = sha256_of(self.file(name))
            except OSError as error:
                raise DatasetError(
                    f"{self.reference}: cannot read {name}: {error.strerror or error}"
                ) from error
            if found != about["sha256"]:
                raise DatasetError(
                    f"{self.reference}: {name} was changed after it was frozen (its sha256 is "
                    f"{found[:SHORT]}…, "
                    f"not {about['sha256'][:SHORT]}…). Build the dataset again, or bring the file back"
                )
        if not self.scrubbed and digest_of(self.manifest["files"]) != self.digest:
            raise DatasetError(f"{self.reference}: its files do not make its digest; build the dataset again")


class Shelf:
    """The datasets in a folder, `<state_dir>/datasets`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def freeze(
        self, name: str, files: Mapping[str, Sequence[Mapping[str, Any]]], about: Mapping[str, Any]
    ) -> tuple[Snapshot, bool]:
        """Writes `files` (name -> rows) and a manifest with `about`; the snapshot, and whether it is new.

        The same content twice is one snapshot, with the manifest of the first time. It appears whole or not
        at all. Raises `DatasetError`.
        """
        check_name(name)
        above = self.folder / name
        part = above / f".part-{os.getpid()}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            written = {
                file: _write(part / file, rows)
                for file, rows in sorted(files.items())
                if rows or file in ALWAYS
            }
            digest = digest_of(written)
            target = above / digest[:SHORT]
            created = not target.exists()
            if created:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                manifest = {"name": name, "digest": digest, "built_at": now, "files": written, **about}
                _write_manifest(part, manifest)
                part.rename(target)
            (above / f".{LATEST}").write_text(digest[:SHORT] + "\n")
            (above / f".{LATEST}").replace(above / LATEST)
        except OSError as error:
            raise DatasetError(f"cannot write to {above}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return self._read(target), created

    def find(self, reference: str) -> Snapshot:
        """By `support@3f9c2ab71e04`, or `support` for the one that was built last. Raises `DatasetError`."""
        parsed = Reference.parse(reference)
        if parsed is None or parsed.number is not None:
            raise DatasetError(
                f"{reference!r} names no dataset; write NAME, or NAME@ and 12 hex digits of its digest"
            )
        above = self.folder / parsed.adapter
        short = self._latest(above) if parsed.digest is None else parsed.digest[:SHORT]
        if short is None or not (above / short / MANIFEST).is_file():
            there = ", ".join(each.reference for each in self.all(parsed.adapter)) or "none of that name"
            raise DatasetError(f"there is no dataset {reference}; there is {there} (hotswap datasets ls)")
        return self._read(above / short)

    def all(self, name: str | None = None) -> list[Snapshot]:
        """Every one, by name, the newest first."""
        files = self.folder.glob(f"{'*' if name is None else name}/*/{MANIFEST}")
        found = [self._read(file.parent) for file in files if not file.parent.name.startswith(".")]
        found.sort(key=lambda each: (each.manifest["built_at"], each.digest), reverse=True)
        return sorted(found, key=lambda each: each.name)

    def remove(self, snapshot: Snapshot) -> None:
        """Its files are gone then; the gateway still knows what it held, and who learned from it."""
        gone = snapshot.folder.with_name(f".gone-{snapshot.folder.name}")
        snapshot.folder.rename(gone)
        shutil.rmtree(gone)
        above = snapshot.folder.parent
        if not self.all(snapshot.name):
            shutil.rmtree(above)
        elif self._latest(above) is None:
            (above / LATEST).unlink(missing_ok=True)

    def scrub(self, snapshot: Snapshot, exchanges: Collection[str]) -> int:
        """Takes out every row that came from one of these request ids, or was generated from it; how many.

        Killed between, it is done again, and comes to the same: a row is known by its sha256.
        """
        unwanted = set(exchanges)
        kept: list[dict[str, Any]] = []
        rows_gone = 0
        for origin in snapshot.origins():
            if unwanted.isdisjoint(_from(origin)):
                kept.append(origin)
            else:
                rows_gone += 1
        if not rows_gone:
            return 0
        # Nobody knows which of them were made of what is forgotten; the next build asks again.
        shutil.rmtree(self.folder / ANSWERS, ignore_errors=True)
        files = dict(snapshot.manifest["files"])
        numbered: list[dict[str, Any]] = []
        for name in files:
            if name == ORIGINS:
                continue
            mine = {origin["sha256"]: origin for origin in kept if origin["file"] == name}
            rows = [row for row in _rows(snapshot.file(name)) if row_digest(row) in mine]
            files[name] = _write(snapshot.file(name), rows, replace=True)
            numbered += [{**mine[row_digest(row)], "row": at} for at, row in enumerate(rows, start=1)]
        files[ORIGINS] = _write(snapshot.file(ORIGINS), numbered, replace=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        scrubbed = {"rows": snapshot.scrubbed + rows_gone, "last_at": now}
        _write_manifest(snapshot.folder, {**snapshot.manifest, "files": files, "scrubbed": scrubbed})
        return rows_gone

    def _latest(self, above: Path) -> str | None:
        try:
            short = (above / LATEST).read_text().strip()
        except OSError:
            short = ""
        if short and (above / short / MANIFEST).is_file():
            return short
        found = self.all(above.name)
        return found[0].digest[:SHORT] if found else None

    def _read(self, folder: Path) -> Snapshot:
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            return Snapshot(manifest["name"], manifest["digest"], folder, manifest)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"the dataset in {folder} has no readable {MANIFEST} ({type(error).__name__}); "
                f"remove the folder"
            ) from error


def check_name(name: str) -> str:
    """Raises `DatasetError` for what is no name of a dataset (or of an adapter, which has the same form)."""
    if not NAME.fullmatch(name):
        raise DatasetError(
            f"dataset name {name[:80]!r} is not usable: 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and "
            "ending with a letter or digit"
        )
    return name


def digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 over a line `sha256  name` for each file, in the order of their names."""
    lines = (f"{about['sha256']}  {name}\n" for name, about in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def row_digest(row: Mapping[str, Any]) -> str:
    """The first 32 hex digits of the sha256 of a row as it is written."""
    return hashlib.sha256(line(row).encode()).hexdigest()[:32]


def _from(origin: Mapping[str, Any]) -> tuple[str, ...]:
    return (*origin.get("ids", ()), *origin.get("seeds", ()))


def _write(file: Path, rows: Sequence[Mapping[str, Any]], *, replace: bool = False) -> dict[str, Any]:
    part = file.with_name(f".{file.name}.part") if replace else file
    with part.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(line(row) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())
        os.fchmod(stream.fileno(), 0o444)
    if replace:
        part.replace(file)
    return _described(file, len(rows))


def _described(file: Path, rows: int) -> dict[str, Any]:
    return {"rows": rows, "sha256": sha256_of(file)}


def _rows(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as stream:
        return [json.loads(text) for text in stream]


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    part = folder / f".{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.chmod(0o444)
    part.replace(folder / MANIFEST)
