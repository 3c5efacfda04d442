"""Is it better? Questions with known answers, asked of several arms, and what the differences are worth.

Called by `gateway.cli` and by the gates' callers; speaks HTTP to any OpenAI endpoint.
"""
