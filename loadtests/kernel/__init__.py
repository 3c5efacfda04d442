"""What a LoRA kernel costs: a fixed number of streams over a fixed number of adapters, engine by engine.

`cells` says who asks for what, `closed` drives it, `turns` alternates between two engines and compares.
Whoever measures starts the engines (`tests/proofs/kernel.py`): this package only speaks HTTP.
"""
