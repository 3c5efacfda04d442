"""Files that were uploaded over OpenAI's Files API: `file-abc123`, fetched from the gateway."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from training.dataset.plan import DatasetError
from training.dataset.sources.traffic import Gateway, reason_of

ID = re.compile(r"file-[0-9A-Za-z]+")


def is_uploaded(location: str) -> bool:
    """A file of that name on this machine comes first."""
    return ID.fullmatch(location) is not None and not Path(location).exists()


@contextmanager
def fetched(file_id: str, gateway: Gateway) -> Iterator[Path]:
    """The file, for as long as the `with` lasts, named by its id with the suffix of the name that it was
    uploaded under. Raises `DatasetError`."""
    url = f"{gateway.url.rstrip('/')}/v1/files/{file_id}"
    headers = {"authorization": f"Bearer {gateway.key}"}
    with tempfile.TemporaryDirectory(prefix="hotswap-file-") as folder:
        try:
            about = httpx.get(url, headers=headers, timeout=60)
            if not about.is_success:
                raise DatasetError(f"the gateway does not give {file_id}: {reason_of(about)}")
            into = Path(folder) / f"{file_id}{Path(about.json()['filename']).suffix.lower()}"
            with httpx.stream("GET", f"{url}/content", headers=headers, timeout=600) as answer:
                if not answer.is_success:
                    answer.read()
                    raise DatasetError(f"the gateway does not give {file_id}: {reason_of(answer)}")
                with into.open("wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
        except httpx.HTTPError as error:
            raise DatasetError(f"the gateway at {gateway.url} stopped answering ({error})") from error
        yield into
