"""One run by several processes: `together.py` is what each of them knows of the others, `local.py` and
`on_ray.py` start them."""
