"""Load tests against any OpenAI endpoint (later: plan, drive, measure, cost, plot).

Run by people and by `make prove`. Imports `adapters` at most, speaks HTTP to a gateway; nothing imports it.
"""
