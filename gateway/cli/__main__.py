"""`python -m gateway.cli` is `hotswap`."""

from gateway.cli import main

main()
