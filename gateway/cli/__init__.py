"""The `hotswap` command: nouns then verbs, each thin over the API or a room below."""


def main() -> None:
    from gateway.cli.commands import hotswap

    hotswap()
