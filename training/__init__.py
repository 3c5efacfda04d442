"""From rows to an adapter: check rows, train QLoRA on a prepared base, register the result over HTTP.

Called by the command line (`hotswap train`, `hotswap demo`), which imports it late, and by proofs. It may
call `adapters` and speaks HTTP to the gateway; it imports nothing of the gateway, and torch only inside
functions.
"""
