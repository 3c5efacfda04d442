"""presidio, as the second tier uses it: its recognizers of patterns, and names that a spaCy pipeline finds.

Without a trained pipeline a language has a blank one, which only splits words: patterns and the words around
them are found then, and no names. Nothing is fetched: presidio's own way would download pipelines, and its
recognizer of e-mail addresses a list of domains.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, NamedTuple, cast

import spacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, predefined_recognizers
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import SpacyRecognizer

from gateway.traffic.redact import Kind
from gateway.traffic.second import Examining, Unexamined

log = logging.getLogger("hotswap.traffic")

PERSON = "PERSON"
USUAL = (
    PERSON,
    *("DE_ID_CARD", "DE_PASSPORT", "DE_SOCIAL_SECURITY", "DE_TAX_ID", "ES_NIE", "ES_NIF", "ES_PASSPORT"),
    *("FI_PERSONAL_IDENTITY_CODE", "IT_FISCAL_CODE", "IT_IDENTITY_CARD", "IT_PASSPORT", "KR_FRN", "KR_RRN"),
    *("PL_PESEL", "SE_PERSONNUMMER", "TH_TNIN", "UK_NINO", "UK_PASSPORT", "US_DRIVER_LICENSE", "US_ITIN"),
    *("US_PASSPORT", "US_SSN"),
)
"""What is taken out when the settings name nothing: what the first tier has no pattern for, and what is
hardly anything else. A bare number with a check digit, such as UK_NHS, is one order number in eleven."""
FETCHES = {
    "EMAIL_ADDRESS": "the first tier has taken them out, and presidio's recognizer fetches a list of domains"
}
"""Entities that are refused, and why."""

PIECE = 4_000
"""Characters that are examined at a time: presidio's time grows with their square when much is found."""
OVERLAP = 200
"""Characters that two pieces share, so that nothing is lost at a cut."""
CONTEXT = 64
"""A text that is no longer may be one whose member's name says what it is: `ssn`."""
KEPT = 2_048
"""Pieces whose findings are remembered: system prompts and tools come again with every request."""
NEEDLESS = ("tagger", "parser", "senter", "morphologizer", "attribute_ruler", "lemmatizer", "textcat")
"""Parts of a pipeline that find nothing, and take most of its time."""


class Found(NamedTuple):
    start: int
    end: int
    entity: str
    score: float


class Presidio:
    """One analyzer for all languages; some 100 MB, and what the pipelines take. Raises `Unexamined` when it
    cannot look for what is wanted."""

    def __init__(self, wanted: Examining) -> None:
        self._slow = _Timeouts()
        its_log = logging.getLogger("presidio-analyzer")
        its_log.setLevel(logging.WARNING)
        its_log.addFilter(self._slow)
        self._score = wanted.score
        self._pipelines = {
            language: _pipeline(language, wanted.models.get(language)) for language in wanted.languages
        }
        recognizers = list(_recognizers(self._pipelines))
        self.entities = _chosen(wanted.entities, recognizers)
        """By language."""
        every = {entity for some in self.entities.values() for entity in some}
        used = [each for each in recognizers if every & set(each.supported_entities)]
        self._analyzer = AnalyzerEngine(
            registry=RecognizerRegistry(used, supported_languages=list(wanted.languages)),
            nlp_engine=_engine(self._pipelines, every),
            supported_languages=list(wanted.languages),
        )
        self._kept = re.compile(
            "|".join(re.escape(f"[{name}]") for name in [*map(str, Kind), *sorted(every)])
        )
        self._found = lru_cache(KEPT)(self._look)
        log.info(
            "the second tier looks for %s", "; ".join(f"{k}: {' '.join(v)}" for k, v in self.entities.items())
        )

    def rewrite(self, text: str, name: str = "") -> str:
        """`text` with placeholders for what it should not hold; `name` is of the member that holds it.
        Raises what presidio and spaCy raise, and `TimeoutError` when a pattern took too long."""
        if not any(map(str.isalnum, text)):
            return text
        context = name.replace("_", " ").replace("-", " ") if len(text) <= CONTEXT else ""
        spans: list[Found] = []
        for start, end in pieces(text):
            for found in self._found(text[start:end], context):
                spans.append(found._replace(start=found.start + start, end=found.end + start))
        return replaced(text, spans, self._kept)

    def _look(self, text: str, context: str) -> tuple[Found, ...]:
        found: list[Found] = []
        self._slow.seen = False
        with ExitStack() as zones:
            # Without it a pipeline remembers every word that it has ever seen.
            for pipeline in self._pipelines.values():
                zones.enter_context(pipeline.memory_zone())
            for language, entities in self.entities.items():
                results = self._analyzer.analyze(
                    text,
                    language,
                    entities=list(entities),
                    score_threshold=self._score,
                    context=[context] if context else None,
                )
                found += [Found(each.start, each.end, each.entity_type, each.score) for each in results]
        if self._slow.seen:
            raise TimeoutError("a pattern took too long, and presidio went on without it")
        return tuple(found)


class _Timeouts(logging.Filter):
    """presidio leaves out a pattern that takes too long, and says so only in its log."""

    seen = False

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        self.seen = self.seen or isinstance(error, TimeoutError)
        return True


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """Where to cut a long text: behind whitespace where there is some. Each piece has the last one's end."""
    start = 0
    while len(text) - start > PIECE:
        end = start + PIECE
        cut = max(text.rfind(space, start + PIECE // 2, end) for space in " \n\t")
        end = cut + 1 if cut >= 0 else end
        yield start, end
        before = max(text.rfind(space, end - OVERLAP, end - 1) for space in " \n\t")
        start = before + 1 if before >= 0 else end - OVERLAP
    yield start, len(text)


def replaced(text: str, spans: list[Found], kept: re.Pattern[str]) -> str:
    """Spans that overlap become one, of the kind that is surest; what `kept` matches stays as it is."""
    merged: list[Found] = []
    for span in sorted(spans):
        last = merged[-1] if merged else None
        if last is not None and span.start < last.end:
            surest = max(last, span, key=lambda each: (each.score, each.end - each.start))
            merged[-1] = surest._replace(start=last.start, end=max(last.end, span.end))
        else:
            merged.append(span)
    result: list[str] = []
    done = 0
    for start, end, entity, _ in merged:
        result.append(text[done:start])
        result.append(_cut_out(text[start:end], f"[{entity}]", kept))
        done = end
    return "".join([*result, text[done:]])


def _cut_out(text: str, placeholder: str, kept: re.Pattern[str]) -> str:
    """The placeholder in place of `text`, except where an earlier placeholder stands in it."""
    result: list[str] = []
    done = 0
    for match in [*kept.finditer(text), None]:
        piece = text[done : match.start() if match else len(text)]
        if any(map(str.isalnum, piece)):
            stripped = piece.strip()
            piece = piece.replace(stripped, placeholder)
        result += [piece, match[0] if match else ""]
        done = match.end() if match else done
    return "".join(result)


def _pipeline(language: str, model: str | None) -> Any:
    """Loaded from a package or a folder, without what finds nothing; or a blank one."""
    if model is None:
        try:
            return spacy.blank(language)
        except ImportError as error:
            raise Unexamined(f"traffic.presidio.languages: spaCy knows no language {language!r}") from error
    try:
        pipeline = spacy.load(model, exclude=NEEDLESS)
    except (OSError, ImportError, ValueError) as error:
        raise Unexamined(f"traffic.presidio.models.{language} = {model!r} does not load: {error}") from error
    if pipeline.lang != language:
        raise Unexamined(
            f"traffic.presidio.models.{language} = {model!r} is a pipeline for {pipeline.lang!r}"
        )
    if "tok2vec" in pipeline.pipe_names and not pipeline.get_pipe("tok2vec").listening_components:
        pipeline.remove_pipe("tok2vec")
    return pipeline


def _named(pipeline: Any) -> set[str]:
    """The entities, by presidio's names, that the pipeline's parts give."""
    names = NerModelConfiguration().model_to_presidio_entity_mapping
    labels = {label for of in pipeline.pipe_labels.values() for label in of}
    return {names[label] for label in labels if label in names}


def _recognizers(pipelines: Mapping[str, Any]) -> Iterator[EntityRecognizer]:
    """Those of patterns that presidio has for the languages, generic ones for each; and of the pipelines."""
    for name in predefined_recognizers.__all__:
        kind = getattr(predefined_recognizers, name)
        if not isinstance(kind, type):  # there is a mapping among them
            continue
        generic, national = (f".{where}." in kind.__module__ for where in ("generic", "country_specific"))
        own = inspect.signature(kind).parameters.get("supported_language")
        for language in pipelines:
            if generic or (national and own is not None and own.default == language):
                yield cast(Any, kind)(supported_language=language)
    for language, pipeline in pipelines.items():
        if named := _named(pipeline):
            yield SpacyRecognizer(supported_language=language, supported_entities=sorted(named))


def _chosen(wanted: tuple[str, ...], recognizers: list[EntityRecognizer]) -> dict[str, tuple[str, ...]]:
    """What to look for, by language: what is wanted, or of the usual what there is."""
    known: dict[str, set[str]] = {}
    for each in recognizers:
        known.setdefault(each.supported_language, set()).update(each.supported_entities)
    every = set().union(*known.values())
    for entity in wanted:
        if entity in FETCHES:
            raise Unexamined(f"traffic.presidio.entities: {entity} is not for here: {FETCHES[entity]}")
        if entity not in every:
            hint = "a spaCy pipeline that knows it, in traffic.presidio.models, or one of "
            raise Unexamined(
                f"traffic.presidio.entities: nothing here finds {entity!r}. It takes {hint}"
                f"{', '.join(sorted(every - FETCHES.keys()))}"
            )
    chosen = {k: tuple(sorted(v & set(wanted or USUAL))) for k, v in known.items()}
    if not any(chosen.values()):
        raise Unexamined("traffic.presidio: for these languages nothing is looked for; name `entities`")
    return {language: entities for language, entities in chosen.items() if entities}


def _engine(pipelines: Mapping[str, Any], every: set[str]) -> SpacyNlpEngine:
    """With pipelines that are loaded, and lemmas for those that give none: without lemmas no words around a
    number tell what it is."""
    configuration = NerModelConfiguration()
    names = configuration.model_to_presidio_entity_mapping
    labels = {label for each in pipelines.values() for of in each.pipe_labels.values() for label in of}
    configuration.labels_to_ignore = sorted(label for label in labels if names.get(label) not in every)

    class Engine(SpacyNlpEngine):  # type: ignore[misc]
        def _doc_to_nlp_artifact(self, doc: Any, language: str) -> NlpArtifacts:
            for token in doc:
                if not token.lemma_:
                    token.lemma_ = token.lower_
            return super()._doc_to_nlp_artifact(doc, language)

    engine = Engine([{"lang_code": each, "model_name": each} for each in pipelines], configuration)
    engine.nlp = dict(pipelines)
    return engine
