"""Load tests against any OpenAI endpoint (later: plan, drive, measure, cost, plot).

Run by people and by `make prove`; imports `adapters` at most and speaks HTTP to a gateway. Nothing imports it.
"""
