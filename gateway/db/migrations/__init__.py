"""Alembic's scripts, one linear history: `versions/NNNN_what.py` with revision "NNNN". Run by `runner`."""
