"""Why the registry said no.

AdapterError              the message says what was wrong, with the value, and what to do
├── Refused               the content cannot be served here; `code` names the rule it broke
├── Unknown               no such adapter, version or route
├── Conflicting           the state does not allow it (e.g. removing a version that serves a route)
├── TooBig                over `registry.max_adapter_bytes`
├── OverQuota             over `registry.quota_bytes`, and nothing left to collect
└── StoreFull             the disk under the store is full; nothing was kept
"""


class AdapterError(Exception):
    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Refused(AdapterError):
    """`code` is one of the rules named in `adapters.preflight` and `adapters.archive`."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message, code=code)


class Unknown(AdapterError):
    pass


class Conflicting(AdapterError):
    pass


class TooBig(AdapterError):
    pass


class OverQuota(AdapterError):
    pass


class StoreFull(AdapterError):
    pass
