"""A spaCy pipeline for tests: not trained, but loaded, and asked for names, as a trained one is."""

from __future__ import annotations

from pathlib import Path

import spacy

NAMES = ("Alice Johnson", "Bob Miller", "Zoë Garcia", "Ada")
PLACES = ("Springfield",)


def pipeline(folder: Path, language: str = "en") -> str:
    """Saved to a folder, whose name it returns. It knows NAMES, PLACES, and a label that presidio lacks."""
    made = spacy.blank(language)
    ruler = made.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": name} for name in NAMES])
    ruler.add_patterns([{"label": "GPE", "pattern": name} for name in PLACES])
    ruler.add_patterns([{"label": "MONEY", "pattern": "ten dollars"}])
    made.to_disk(folder)
    return str(folder)
