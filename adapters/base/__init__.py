"""Bases: what a prepared one is, and how it is prepared.

`manifest` is light and may be imported by anyone; `prepare`, `sources` and `convert` are the work behind
`hotswap base prepare`, import torch late, and are called by the command line only.
"""
