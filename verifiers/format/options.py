"""Options of the format verifier. Every rule that is set must hold; at least one has to be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from synth.records.errors import InputError

MAX_PATTERN = 10_000
_TAG = re.compile(r"[A-Za-z_][\w.:-]*")


@dataclass(frozen=True)
class FormatOptions:
    """Which rules hold. A row's `json_schema` and `regex` win over these."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    tags: tuple[str, ...] = ()
    """Names of tags (`think`, `answer`): each once, closed, in this order, none inside another, none empty."""
    outside: Literal["none", "any"] = "none"
    """none: only white space before, between and after the tags; any: text may stand there."""
    may_be_empty: tuple[str, ...] = ()
    """Tags that may hold nothing."""
    prefix: str = ""
    """What the prompt already began the answer with (`<think>`); it is put before the completion."""
    part: str | None = None
    """The tag whose content the rules below judge; null: the whole completion."""
    fenced: Literal["refused", "allowed", "required"] = "refused"
    """Whether that content may, or must, be one Markdown code fence, whose inside is then judged."""
    json: bool = False
    """One JSON value and nothing else; no NaN, no repeated keys."""
    json_schema: dict[str, Any] | None = None
    """JSON, and valid under this JSON Schema (draft 2020-12 unless `$schema` says otherwise; nothing is fetched)."""
    regex: str | None = None
    """A Python regular expression."""
    regex_match: Literal["full", "search"] = "full"
    """full: it matches all of the content; search: it is found in it."""
    xml: bool = False
    """A well-formed XML document without a document type (so no entities of its own and none fetched)."""
    xml_root: str | None = None
    """XML whose root element has this name."""

    def __post_init__(self) -> None:
        for name in ("tags", "may_be_empty"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        for name in self.may_be_empty:
            if name not in self.tags:
                raise InputError("may_be_empty", f"seen '{name}'", f"tags are: {', '.join(self.tags)}")
        if self.part is not None and self.part not in self.tags:
            raise InputError("part", f"seen {self.part!r}", f"tags are: {', '.join(self.tags) or 'none'}")
        _one_of("outside", self.outside, ("none", "any"))
        _one_of("fenced", self.fenced, ("refused", "allowed", "required"))
        _one_of("regex_match", self.regex_match, ("full", "search"))
        for name in ("json", "xml"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(name, f"seen {getattr(self, name)!r}", "true or false")
        for name in ("prefix", "xml_root"):
            if not isinstance(getattr(self, name), (str, type(None) if name == "xml_root" else str)):
                raise InputError(name, f"seen {getattr(self, name)!r}", "needs text")
        if self.regex is not None:
            _check_pattern(self.regex)
        if self.json_schema is not None:
            check_schema(self.json_schema)

    def rules(self) -> bool:
        """Whether there is anything to judge."""
        content = self.json or self.json_schema is not None or self.regex is not None
        return bool(self.tags) or content or self.wants_xml() or self.fenced == "required"

    def wants_xml(self) -> bool:
        """Whether the content must be XML."""
        return self.xml or self.xml_root is not None


def _names(option: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, (list, tuple)):
        raise InputError(option, f"seen {names!r}", "a list of tag names, as in [think, answer]")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not _TAG.fullmatch(name):
            raise InputError(f"{option}.{index}", f"seen {name!r}", "a tag's name without brackets")
        if name.lower() in (other.lower() for other in names[:index]):
            raise InputError(f"{option}.{index}", f"'{name}' twice", "every tag stands once in an answer")
    return tuple(names)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(name, f"seen {value!r}", f"one of {', '.join(known)}")


def _check_pattern(pattern: Any) -> None:
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN:
        raise InputError("regex", f"seen {str(pattern)[:40]!r}", f"text of at most {MAX_PATTERN} characters")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError("regex", f"'{pattern[:80]}' is no regular expression ({error})") from None


def check_schema(schema: Any) -> None:
    """Raises InputError, with the path inside, for what is no JSON Schema."""
    if not isinstance(schema, dict):
        raise InputError("json_schema", f"seen {str(schema)[:40]!r}", "a map of JSON Schema keywords")
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = ".".join(["json_schema", *map(str, error.absolute_path)])
        raise InputError(where, error.message[:200], "") from None
    except RecursionError:
        raise InputError("json_schema", "nested too deeply", "") from None
