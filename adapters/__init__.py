"""The registry of adapters: names, versions, files and what may be served. Usable without the gateway.

Called by `gateway` and `training`; calls neither. `base` is what adapters are trained for, `vllm_plugin` runs
inside the engine and shares nothing with the rest.
"""
