"""The format verifier: tags first, then what stands in one of them (or in the whole completion)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from verifiers.base import Verdict, Verifier, check_cases, failed, passed, unjudged
from verifiers.format.content import check_json, check_xml, unfence
from verifiers.format.options import FormatOptions
from verifiers.format.tags import Broken, read_tags
from verifiers.pool import WorkerDied, WorkerFailed, WorkerPool, WorkerTimeout, unanswered

TIME_LIMIT = 2.0  # seconds of a worker for one text
MEMORY_MB = 512
MAX_CHARACTERS = 1_000_000
_ROW_OPTIONS = ("json_schema", "regex")


class FormatVerifier(Verifier):
    """`pass/well_formed` when every rule of the options holds; else the reason is the first rule that does not.

    Rows need `completion`. `details` say which tag, position, path or message.
    """

    name: ClassVar[str] = "format"
    Options: ClassVar[type] = FormatOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._pool = WorkerPool("verifiers.format.content:judge", 1, TIME_LIMIT, MEMORY_MB)

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()

    def row_options(self, row: Mapping[str, Any]) -> Any:
        """A problem may bring a schema or an expression; columns called `tags` or `part` mean other things."""
        own = {name: row[name] for name in _ROW_OPTIONS if row.get(name) is not None}
        if isinstance(own.get("json_schema"), str):  # a column of a table holds it as text
            own["json_schema"] = json.loads(own["json_schema"])
        return replace(self.options, **own) if own else self.options

    def judge(self, row: Mapping[str, Any], options: FormatOptions) -> Verdict:
        """The verdict of one row."""
        if not options.rules():
            return unjudged("invalid_option", message="no rule is set: tags, json, json_schema, regex or xml")
        text = options.prefix + str(row["completion"])
        if len(text) > MAX_CHARACTERS:
            return failed("too_complex", message=f"{len(text)} characters, more than {MAX_CHARACTERS}")
        content = text
        if options.tags:
            held = read_tags(text, options.tags, options.outside, options.may_be_empty)
            if isinstance(held, Broken):
                return _failed(held)
            content = held[options.part] if options.part else text
        inner = unfence(content, options.fenced)
        if isinstance(inner, Broken):
            return _failed(inner)
        broken = None
        if options.json or options.json_schema is not None:
            broken = check_json(inner)
        if broken is None and options.wants_xml():
            broken = check_xml(inner, options.xml_root)
        if broken is not None:
            return _failed(broken)
        return self._in_worker(inner, options) or passed("well_formed")

    def _in_worker(self, text: str, options: FormatOptions) -> Verdict | None:
        """What may take for ever: killed past the limit, and then not judged."""
        if options.regex is None and options.json_schema is None:
            return None
        task = {
            "text": text,
            "regex": options.regex,
            "match": options.regex_match,
            "schema": options.json_schema,
        }
        try:
            answer = self._pool.call(task)
        except (WorkerTimeout, WorkerDied, WorkerFailed) as error:
            return unanswered(error)
        if answer is None:
            return None
        if "invalid" in answer:
            return unjudged("invalid_option", message=answer["invalid"])
        return _failed(Broken(answer["rule"], answer["facts"]))

    def verify_batch(
        self, rows: Iterable[Mapping[str, Any]], workers: int | None = None
    ) -> Iterator[Verdict]:
        """Verdicts in input order, with one process a thread for what needs one."""
        self._pool.grow(workers or 1)
        return super().verify_batch(rows, workers)

    def self_test(self) -> list[str]:
        """Good, bad and hostile forms for each kind of rule in use."""
        problems = []
        wanted = {"json_schema": self.options.json_schema is not None, "regex": self.options.regex is not None,
                  "xml": self.options.wants_xml()}  # fmt: skip
        for options, cases in _SELF_TEST:
            if not all(wanted.get(name, True) for name in options):
                continue  # no process is started for a rule that is not in use
            with FormatVerifier(**options) as verifier:
                problems += check_cases(
                    verifier, [({"completion": text}, status, reason) for text, status, reason in cases]
                )
        return problems


def _failed(broken: Broken) -> Verdict:
    return failed(broken.rule, rule=broken.rule, **broken.facts)


_GOOD = "<think>2 and 2</think>\n<answer>4</answer>"
_SELF_TEST: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    (
        {"tags": ["think", "answer"]},
        [
            (_GOOD, "pass", "well_formed"),
            ("", "fail", "tag_missing"),
            ("<think></think><answer>4</answer>", "fail", "tag_empty"),
            (_GOOD + "<answer>5</answer>", "fail", "tag_repeated"),
            (_GOOD + "\ntrailing", "fail", "text_outside"),
            ("<answer>4</answer><think>2 and 2</think>", "fail", "tag_order"),
            ("<think><answer>4</answer></think>", "fail", "tag_order"),
            ("<think>a</think></think><answer>4</answer>", "fail", "tag_repeated"),
            (_GOOD + "<Answer>5</Answer>", "fail", "tag_malformed"),
        ],
    ),
    (
        {"json_schema": {"type": "object", "required": ["a"]}},
        [
            ('{"a": 1}', "pass", "well_formed"),
            ('{"b": 1}', "fail", "schema_mismatch"),
            ('{"a": NaN}', "fail", "not_json"),
            ('{"a": 1, "a": 2}', "fail", "key_repeated"),
        ],
    ),
    (
        {"regex": "(a+)+b"},
        [("aab", "pass", "well_formed"), ("aac", "fail", "regex_mismatch"), ("a" * 60, "error", "timeout")],
    ),
    (
        {"xml": True},
        [
            ("<a><b/></a>", "pass", "well_formed"),
            ("<a><b></a>", "fail", "not_xml"),
            ('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><a>&e;</a>', "fail", "not_xml"),
        ],
    ),
]
