"""What the gateway answers when it cannot do what was asked.

    GatewayError                 has a status, an OpenAI type and code, and a message that says what to do
    ├── BadRequest          400  invalid_request_error
    ├── Unauthorized        401  authentication_error / invalid_api_key
    ├── Forbidden           403  permission_error
    ├── NotFound            404  invalid_request_error / model_not_found ...
    ├── Conflict            409  invalid_request_error
    ├── TooLarge            413  invalid_request_error / body_too_large
    ├── Overloaded          429  rate_limit_error, with Retry-After
    └── Unavailable         503  server_error, with Retry-After

`gateway.api.errors` turns one of these into OpenAI's error body; nothing else builds error bodies.
"""

from collections.abc import Mapping


class GatewayError(Exception):
    """An answer that is not the one asked for. `message` says what was wrong, the value, and what to do."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code if code is not None else type(self).code
        self.param = param
        self.retry_after_s = retry_after_s

    def headers(self) -> Mapping[str, str]:
        """Response headers for this error; `retry-after` in whole seconds, rounded up, at least 1."""
        if self.retry_after_s is None:
            return {}
        return {"retry-after": str(max(1, -int(-self.retry_after_s // 1)))}


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(GatewayError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    status = 403
    type = "permission_error"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"


class Conflict(GatewayError):
    status = 409
    type = "invalid_request_error"


class TooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class Overloaded(GatewayError):
    status = 429
    type = "rate_limit_error"


class Unavailable(GatewayError):
    """Nothing can answer now; `retry_after_s` is always given."""

    status = 503
    type = "server_error"
    code = "engine_unavailable"

    def __init__(
        self, message: str, *, retry_after_s: float, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, code=code, param=param, retry_after_s=retry_after_s)
