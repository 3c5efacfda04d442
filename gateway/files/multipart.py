"""An upload (multipart/form-data) taken apart as it arrives, in constant memory.

The file goes to a staged blob, whichever order the fields come in; the others are short and are kept. Feeding
blocks on the disk: call it in a thread.
"""

from __future__ import annotations

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import BadRequest, TooLarge
from gateway.files.blobs import Staged

MAX_FIELD_BYTES = 4096
MAX_FIELDS = 16


class Upload:
    """`feed` every piece, then `finish`. `fields` are the short ones, `filename` is the file's or None."""

    def __init__(self, content_type: str, staged: Staged, max_bytes: int) -> None:
        """Raises `BadRequest` when it is no multipart form."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise BadRequest(
                f"The content type is {content_type[:80]!r}; a file is sent as multipart/form-data with a "
                "boundary.",
                code="invalid_content_type",
            )
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.has_file = False
        self._staged = staged
        self._max_bytes = max_bytes
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._name, self._in_file = "", False
        self._field = bytearray()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Raises `BadRequest`, `TooLarge`, `DiskFull`."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise BadRequest(
                f"The multipart form cannot be read: {error}.", code="invalid_multipart"
            ) from error

    def finish(self) -> None:
        """Raises `BadRequest` when the end is missing."""
        if not self._ended:
            raise BadRequest(
                "The multipart form ends before its last boundary: a part of it is missing. Send it again.",
                code="invalid_multipart",
            )

    def _part_begin(self) -> None:
        self._headers, self._field, self._in_file = {}, bytearray(), False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise BadRequest("A part of the multipart form has no name.", code="invalid_multipart")
        if b"filename" in options or self._name == "file":
            if self._name != "file" or self.has_file:
                raise BadRequest(
                    f"The form has a file in {self._name[:64]!r}; one file is sent, in 'file'.",
                    code="unknown_parameter" if self._name != "file" else "duplicate_parameter",
                    param=self._name[:64],
                )
            self._in_file = self.has_file = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace") or None
        elif self._name in self.fields or len(self.fields) >= MAX_FIELDS:
            raise BadRequest(
                f"The form has {self._name[:64]!r} twice, or too many fields.",
                code="duplicate_parameter",
                param=self._name[:64],
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            if self._staged.size + end - start > self._max_bytes:
                raise TooLarge(
                    f"The file has more than {self._max_bytes:,} bytes, which is what is accepted. Split it.",
                    code="file_too_large",
                    param="file",
                )
            self._staged.write(data[start:end])
        else:
            self._field += data[start:end]
            if len(self._field) > MAX_FIELD_BYTES:
                raise BadRequest(
                    f"The field {self._name[:64]!r} has more than {MAX_FIELD_BYTES} bytes.",
                    code="string_above_max_length",
                    param=self._name[:64],
                )

    def _part_end(self) -> None:
        if not self._in_file:
            self.fields[self._name] = self._field.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True
