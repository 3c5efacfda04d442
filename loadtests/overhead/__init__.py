"""What a gateway costs: the same load against an engine directly and through a gateway, by turns.

The engine is a mock that answers at once or on time, so the gateway is what is measured. `yardstick` runs a
mock and a generator in C (built from a folder that the user names); `own` does it with the fake engine and
this package's own generator. `cells` says what is measured, `systems` starts what is compared, `bench` takes
turns, `verdict` judges. Called by `hotswap bench overhead` and by `make prove`.
"""
