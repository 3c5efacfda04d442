"""Hotswap's gateway: the service. `app.build(settings)` wires it; `cli` is the `hotswap` command."""
