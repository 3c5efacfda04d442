"""How an adapter learns: each method turns rows into a trainer of trl's, and nothing else.

Called by `training.run`, which does what all of them have in common.
"""
