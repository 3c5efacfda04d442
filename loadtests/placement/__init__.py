"""Simulations of the fleet with the gateway's own placement: `python -m loadtests.placement --out FOLDER`.

`spread` places many versions on many engines: load, what moves when engines come and go, and how far gateways
that see different traffic agree. `fleet` runs requests through engines of given proportions (`engine`), dealt
out by one of the ways in `dispatch`. `traffic` is who asks for what; `tables` and `plots` show the results.
Of the gateway it imports `gateway.fleet.placement` only, which is pure: what is simulated is what runs.
"""
