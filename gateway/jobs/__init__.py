"""Fine-tuning jobs: what is asked, what has become of it, and the worker that does it.

In the gateway: `request` reads what is asked, `jobs` records it and changes it, `queue` hands it to workers
in the same transaction, `shown` writes it as OpenAI does, `beside` keeps a worker running. In the worker's
process: `worker` takes jobs, `run` has one done by a child, `progress` records how far it is, `house` speaks
to the gateway, `webhook` tells of its end. Called by `gateway.api`, `gateway.app` and `gateway.cli`; calls
`gateway.db` and `gateway.supervise`, and HTTP. It never imports the trainer: that is a program of its own
(`python -m training`).
"""
