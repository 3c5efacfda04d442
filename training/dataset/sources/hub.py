"""Rows in a data set of Hugging Face's `datasets`: a folder that it saved, or of data files; or one of the
hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from training.dataset.candidate import Candidate, Ledger
from training.dataset.plan import DatasetError
from training.dataset.sources.files import candidates
from training.dataset.sources.records import Records

SCHEME = "hf://"
SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


def place_of(location: str) -> tuple[str, str]:
    """The folder or hub id, and the split. Raises `DatasetError`."""
    path, _, query = location.removeprefix(SCHEME).partition("?")
    options = dict(parse_qsl(query))
    if strange := sorted(set(options) - {"split"}):
        raise DatasetError(f"{location}: {strange[0]!r} is not known; hf:// takes split, e.g. ?split=train")
    return path, options.get("split", "train")


def licence_of(location: str) -> str:
    """What the card of a folder (the head of its README.md) or its saved description says; "" for nothing."""
    folder = Path(place_of(location)[0])
    card = folder / "README.md"
    if card.is_file():
        head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        said = re.search(r"^license:\s*(?:\n\s*-\s*)?([^\n#]+)", head[1], re.MULTILINE) if head else None
        if said:
            return said[1].strip().strip("'\"")
    return ""


def read_hub(location: str, records: Records, ledger: Ledger) -> Iterator[Candidate]:
    """Every row of one split. Raises `DatasetError`."""
    path, split = place_of(location)
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"hf:// needs {error.name}: pip install 'hotswap[training]'") from error
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="hotswap-hf-") as cache:
        try:
            table = _table(datasets, path, split, cache)
        except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
            raise DatasetError(
                f"cannot read {location}: {str(error).strip() or type(error).__name__}"
            ) from error
        yield from candidates(_numbered(table), f"{Path(path).name}[{split}]", records, ledger)


def _table(datasets: Any, path: str, split: str, cache: str) -> Any:
    folder = Path(path)
    if folder.is_dir() and any((folder / name).is_file() for name in SAVED):
        found = datasets.load_from_disk(str(folder))
        if not isinstance(found, datasets.DatasetDict):
            return found
        if split not in found:
            raise DatasetError(f"{path} has no split {split!r}, but {', '.join(found)}: hf://{path}?split=…")
        return found[split]
    if not folder.is_dir() and path.count("/") != 1:
        raise DatasetError(f"{path!r} is neither a folder nor a hub id (owner/name)")
    return datasets.load_dataset(path if not folder.is_dir() else str(folder), split=split, cache_dir=cache)


def _numbered(table: Any) -> Iterator[tuple[int, Callable[[], Any]]]:
    for number, row in enumerate(table, start=1):
        yield number, lambda row=row: row  # type: ignore[misc]
