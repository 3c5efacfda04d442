"""The base's tokenizer and chat template without transformers, whose import alone takes seconds.

`Chat` offers the part of a transformers tokenizer that `training.tokens` uses, so the same code says what is
learned. transformers renders with this very jinja2 environment (utils/chat_template_utils.py, 5.19) and
counts with the same `tokenizers`; tests/training/preflight/test_chat.py holds the two against each other.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipe import TrainingError

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class NoChat(TrainingError):
    """The base's tokenizer or template cannot be used; the message says what to do."""


class BadTemplate(ValueError):
    """The template refuses a conversation, or cannot render it. A `ValueError`, as of a row."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and, for each, the characters that it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]

    def __getitem__(self, key: str) -> Any:
        return self.ids if key == "input_ids" else self.offsets


class Chat:
    """Renders and counts. `stops` are the ids that end generation; `specials` the control tokens' texts."""

    def __init__(
        self,
        tokenizer: Any,
        template: str,
        special_tokens: Mapping[str, str],
        stops: frozenset[int],
        eos_token_id: int | None,
    ) -> None:
        self.chat_template = template
        self.eos_token_id = eos_token_id
        self.stops = stops
        self.special_tokens = dict(special_tokens)
        self._tokenizer = tokenizer
        self._compiled = _compile(template)
        added = tokenizer.get_added_tokens_decoder().values()
        self.specials = frozenset(token.content for token in added if token.special)

    @classmethod
    def read(cls, folder: Path) -> Chat:
        """Of the prepared base in `folder`. Raises `NoChat`."""
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise NoChat(
                f"the base has no tokenizer.json, only a slow tokenizer; convert it once: "
                f"AutoTokenizer.from_pretrained(…).save_pretrained({folder.name!r}), then prepare it again"
            )
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = _json(folder / "tokenizer_config.json")
        template = _template(folder, config)
        special = {name: _content(config[name]) for name in _SPECIAL if config.get(name)}
        special = {name: text for name, text in special.items() if text}
        eos = tokenizer.token_to_id(special["eos_token"]) if "eos_token" in special else None
        named = _json(folder / "generation_config.json").get("eos_token_id")
        ids = {eos, *(named if isinstance(named, list) else [named])}
        stops = frozenset(int(token) for token in ids if token is not None)
        return cls(tokenizer, template, special, stops, eos)

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], *, tokenize: bool = False, add_generation_prompt: bool
    ) -> str:
        """The text that an engine sees. Raises `BadTemplate` with what the template says."""
        import jinja2

        assert not tokenize
        try:
            return str(
                self._compiled.render(
                    messages=list(messages),
                    tools=None,
                    documents=None,
                    add_generation_prompt=add_generation_prompt,
                    **self.special_tokens,
                )
            )
        except jinja2.TemplateError as error:
            raise BadTemplate(f"the base's chat template refuses it: {error}") from error
        except (TypeError, ValueError, KeyError) as error:
            raise BadTemplate(
                f"the base's chat template cannot render it: {type(error).__name__} {error}"
            ) from error

    def __call__(
        self, text: str, *, add_special_tokens: bool = False, return_offsets_mapping: bool = True
    ) -> Encoded:
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return Encoded(encoding.ids, encoding.offsets)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; all cores work on it."""
        return [len(each.ids) for each in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def text_of(self, token: int) -> str:
        """The text of one id."""
        return str(self._tokenizer.id_to_token(token))


def _template(folder: Path, config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = config.get("chat_template") or _json(folder / "chat_template.json").get("chat_template")
    if isinstance(found, list):
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    if not isinstance(found, str) or not found:
        raise NoChat(
            "the base has no chat template, so there is no way to write a conversation for it; take an "
            "instruct model as the base, or put the template into chat_template.jinja and prepare it again"
        )
    return found


def _compile(template: str) -> Any:
    """As transformers compiles it: sandboxed, blocks trimmed, its filters, and `{% generation %}`."""
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks an answer; the text is the same."""

        tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

    def strftime_now(form: str) -> str:
        return datetime.datetime.now().strftime(form)  # the engine's own clock, as there

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise NoChat(
            f"the base's chat template is broken at line {error.lineno}: {error.message}; mend "
            "chat_template.jinja in the source, and prepare the base again"
        ) from error


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise NoChat(f"{file.name} of the base is not JSON ({error}); prepare the base again") from error
    return found if isinstance(found, dict) else {}
