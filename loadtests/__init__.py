"""Load tests against any OpenAI endpoint: plan, drive, measure, cost, plot; and the gateway's own overhead.

`plan` makes a frozen list of requests out of a `scenario` and a seed, `drive` sends them, `measure` turns the
samples into figures, `run` does it all and keeps it in a folder. Imports `adapters` at most, speaks HTTP;
nothing imports it but `hotswap bench`, when it is called.
"""
