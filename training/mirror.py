"""Checkpoints in an object store, for machines that are taken away: s3://, gs://, az:// or file:// URLs.

    <url>/<run>/checkpoint-40/<file>     as in the local folder; whole.json, the mark, is written last

A checkpoint counts when its mark is there. Credentials come from the environment (AWS_…, GOOGLE_…,
AZURE_…).
A store that is away never stops a run that goes: it is said, and the next checkpoint is sent again.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.disk import sync
from training.checkpoints import MARK, PREFIX
from training.recipe import TrainingError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

log = logging.getLogger("hotswap.training")

STATE = "trainer_state.json"
RETRY: dict[str, Any] = {"max_retries": 3}


class Mirror:
    """The checkpoints of one `run` below `url`. Raises `TrainingError` for a URL that no store has."""

    def __init__(self, url: str, run: str) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise TrainingError(
                f"checkpoints at {url} need obstore: pip install 'hotswap[objects]'"
            ) from error
        local = url.startswith("file://")
        more: dict[str, Any] = (
            {"mkdir": True, "automatic_cleanup": True} if local else {"retry_config": RETRY}
        )
        self._refusals = (BaseError, OSError)
        self._run = run
        try:
            self._store: ObjectStore = from_url(url, **more)
        except (BaseError, ValueError) as error:
            raise TrainingError(f"checkpoints cannot be kept at {url}: {error}") from error

    def push(self, checkpoint: Path) -> bool:
        """Sends a whole checkpoint's folder, its mark last; those that are not beside it any more go. Whether
        it is there now."""
        import obstore

        at = f"{self._run}/{checkpoint.name}"
        try:
            for file in sorted(checkpoint.iterdir(), key=lambda each: each.name == MARK):
                obstore.put(self._store, f"{at}/{file.name}", file)
            for name in self._whole():
                if not (checkpoint.parent / name).is_dir():
                    self._delete(f"{self._run}/{name}/")
        except self._refusals as error:
            log.warning("%s is on this machine only: %s", checkpoint.name, error)
            return False
        return True

    def fetch(self, into: Path) -> None:
        """Brings whole checkpoints into the folder `into`, unless they are there.

        Raises `TrainingError` when the store does not answer: a run must not begin anew because of that.
        """
        try:
            for name in self._whole():
                if not (into / name / MARK).is_file():
                    self._bring(name, into)
        except self._refusals as error:
            raise TrainingError(
                f"the store of checkpoints does not answer: {error}. Try again, or leave it out to begin anew"
            ) from error

    def forget(self) -> None:
        """The run's adapter is registered, or never will be: nothing of it stays there."""
        try:
            self._delete(f"{self._run}/")
        except self._refusals as error:
            log.warning("checkpoints of %s stay in the store: %s", self._run, error)

    def _bring(self, name: str, into: Path) -> None:
        import obstore

        part = into / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for path in self._files(f"{self._run}/{name}/"):
            with (part / path.rpartition("/")[2]).open("wb") as file:
                for chunk in obstore.get(self._store, path):
                    file.write(chunk)
        state = json.loads((part / STATE).read_bytes())
        if best := state.get("best_model_checkpoint"):
            # Of the machine that wrote it; transformers loads it from there at the end.
            state["best_model_checkpoint"] = str(into / Path(best).name)
            (part / STATE).write_text(json.dumps(state))
        for written in part.iterdir():
            sync(written)
        sync(part)
        shutil.rmtree(into / name, ignore_errors=True)
        part.rename(into / name)
        sync(into)

    def _whole(self) -> list[str]:
        paths = (path.removeprefix(f"{self._run}/").split("/") for path in self._files(f"{self._run}/"))
        return sorted(path[0] for path in paths if path[0].startswith(PREFIX) and path[1:] == [MARK])

    def _files(self, prefix: str) -> list[str]:
        import obstore

        return [entry["path"] for page in obstore.list(self._store, prefix) for entry in page]

    def _delete(self, prefix: str) -> None:
        """The mark first: what is deleted in part is not whole."""
        import obstore

        for path in sorted(self._files(prefix), key=lambda each: not each.endswith(f"/{MARK}")):
            obstore.delete(self._store, path)


def main(words: list[str]) -> int:
    """`python -m training.mirror forget s3://bucket/runs/JOB`: for workers, when a job has ended."""
    if len(words) != 2 or words[0] != "forget":
        print("usage: python -m training.mirror forget URL", file=sys.stderr)
        return 2
    above, _, run = words[1].rstrip("/").rpartition("/")
    Mirror(above, run).forget()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
