"""From whatever somebody has to a dataset: a frozen, content-addressed snapshot of training rows, with
lineage.

`plan.py` says what is wanted, `build.py` does it from end to end, `snapshot.py` keeps the result. Called by
`hotswap datasets`, which imports it late. It may call `adapters` and the rest of `training`, and speaks HTTP
to the gateway and to OpenAI endpoints; what it must have of the gateway's own code, such as its redaction, is
handed to it by the command line.
"""
