"""Can this run work, what will it take, and should it be run at all? Answered in seconds, before torch loads.

`run.inspect` asks every check and gives a `report.Report`: findings with file, line and fix, estimates of
memory, time and cost, advice, and a verdict. Called by `hotswap train` (always) and `--dry-run` (only). It
may call the rest of `training`, but imports neither torch nor transformers: rows are rendered by the base's
own chat template with jinja2 and counted with `tokenizers`, as transformers does it (a test compares).
"""
