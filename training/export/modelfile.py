"""Ollama's Modelfile: the GGUF beside it, the template that was trained with, and where answers stop."""

from __future__ import annotations

from pathlib import Path

from training.recipe import TrainingError

SYSTEM, USER, ANSWER, AGAIN = "SYSTEM-TEXT", "USER-TEXT", "ANSWER-TEXT", "AGAIN-TEXT"
"""Words by which the parts of a rendered conversation are found."""


def modelfile(model: Path, gguf: str) -> str:
    """`model` is a merged model's folder. Raises `TrainingError` for a template that Go's cannot say.

    Ollama's templates are Go's, not Jinja. What the base's template writes around each part of a
    conversation is read off a rendered one, and a longer one must come out the same. What the template says
    of itself where there is no system message becomes SYSTEM.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)

    def rendered(*messages: tuple[str, str], ask: bool) -> str:
        told = [{"role": role, "content": content} for role, content in messages]
        return str(tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=ask))

    first = rendered(("system", SYSTEM), ("user", USER), ask=True)
    more = rendered(("system", SYSTEM), ("user", USER), ("assistant", ANSWER), ("user", AGAIN), ask=True)
    header, _, rest = first.partition(SYSTEM)
    between, _, answer_header = rest.partition(USER)
    user_header = header.replace("system", "user")
    if not between.endswith(user_header):  # a token begins the text that does not begin a turn
        user_header = user_header.removeprefix(tokenizer.bos_token or "")
    end = between.removesuffix(user_header)
    if more != f"{first}{ANSWER}{end}{user_header}{AGAIN}{answer_header}" or end == between:
        raise _refusal()
    template = (
        f"{{{{ if .System }}}}{header}{{{{ .System }}}}{end}{{{{ end }}}}{{{{ range .Messages }}}}"
        f'{{{{ if eq .Role "user" }}}}{user_header}{{{{ .Content }}}}{answer_header}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{end}{{{{ end }}}}{{{{ end }}}}'
    )
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{template}"""']
    plain, _, _ = rendered(("user", USER), ask=True).partition(USER)
    if plain.startswith(header) and plain.endswith(f"{end}{user_header}"):
        default = plain.removeprefix(header).removesuffix(f"{end}{user_header}")
        lines.append(f'SYSTEM """{default}"""')
    elif plain != user_header:
        raise _refusal()
    lines.append(f'PARAMETER stop "{end.strip()}"')
    return "\n".join(lines) + "\n"


def _refusal() -> TrainingError:
    return TrainingError(
        "this base's template cannot be said in Ollama's: export --format merged, or let llama.cpp use the "
        "one in the GGUF (--jinja)"
    )
