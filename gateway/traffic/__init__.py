"""Remember every exchange: journal, lake, redaction, feedback, and how to forget."""
