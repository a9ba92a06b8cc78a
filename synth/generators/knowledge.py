"""Question-answer pairs and paraphrased facts from documents, each supported by its passage.

1. Documents are cut into passages at paragraph ends, at sentence ends where a paragraph is longer.
2. The model lists the facts of a passage, each with the words that state it; what is not quoted word for word is left
   out. Facts that were told before are dropped.
3. One question with a short answer a fact. The question must stand by itself, the answer must not stand in it, and its
   numbers must stand in the passage.
4. In a session of its own the model checks each answer against the passage and quotes what supports it; the quote must
   be the passage's and hold the answer's numbers.
5. Ten paraphrases a supported fact, with its numbers and no others; a further session checks fact and paraphrases
   against the passage. Recall of new facts grows with the paraphrases trained on (Ovadia et al. 2023, "Fine-Tuning or
   Retrieval?", arXiv 2312.05934, ten of each chunk).
6. Rows: `closed_book` (question, answer), `with_context` (passage and question, answer), `paraphrase` (question, the
   fact in other words).

Departure: Ovadia et al. paraphrase whole chunks and train on them as plain text; here a paraphrase answers a question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from synth.generators.base import Generator, Item, Row, Sifted, Step, Task, Unusable
from synth.generators.checks import holds, numbers, points_at_source
from synth.generators.novelty import once, words
from synth.generators.options import at_least, some_of
from synth.generators.passages import passages
from synth.generators.replies import TEXT, TRUTH, list_of, one_of, record
from synth.generators.session import Session
from synth.records.ids import content_hash

VARIANTS = ("closed_book", "with_context", "paraphrase")
SUPPORTED = "supported"
VERDICTS = (SUPPORTED, "contradicted", "absent")
FEWEST_WORDS = 3
"""Words of a fact, a question or a quote below which it says nothing."""


@dataclass(frozen=True)
class Options:
    """Options of the generator `knowledge`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    count: int | None = None
    """Use the first `count` documents; null: all."""
    passage_words: int = 300
    """Most words of a passage; a sentence that is longer stays whole."""
    min_words: int = 30
    """Shorter passages are left out."""
    facts: int = 8
    """Facts a passage is asked for at most."""
    paraphrases: int = 10
    """Paraphrases of each fact."""
    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    """Rows made of each fact: closed_book, with_context, paraphrase."""

    def __post_init__(self) -> None:
        at_least(self, 1, "min_words", "facts", "paraphrases")
        at_least(self, self.min_words, "passage_words")
        some_of(self, VARIANTS, "variants")
        if self.count is not None:
            at_least(self, 1, "count")


def generate(session: Session, options: Options, documents: list[Item]) -> list[Item]:
    """Rows `prompt, completion, variant, question, answer, fact, quote` and the document's other columns."""
    chosen = documents[: options.count]
    read = session.sift("passages", lambda: passages(chosen, options.passage_words, options.min_words))
    told = {"fact": TEXT, "quote": TEXT}
    schema = record(facts=list_of(record(**told), options.facts))
    step = Step("facts", session.template("facts"), _read_facts, schema)
    found = session.ask(step, [_facts_task(item, options.facts) for item in read])
    facts = session.sift("new", lambda: once(found, lambda item: item["fact"]))
    asked = [_question_task(item) for item in facts]
    step = Step("question", session.template("question"), _read_question, record(question=TEXT, answer=TEXT))
    written = session.ask(step, asked)
    step = Step("support", session.template("support"), _read_support, record(quote=TEXT, supported=TRUTH))
    checked = session.ask(step, [_support_task(item) for item in written])
    pairs = session.sift("supported", lambda: _supported(written, checked))
    said = _paraphrase(session, options, pairs) if "paraphrase" in options.variants else ([], [])
    return session.sift("rows", lambda: _rows(session, options, pairs, *said))


# ---- Facts ------------------------------------------------------------------------------------------


def _facts_task(item: Item, count: int) -> Task:
    values = {"passage": item["passage"], "title": str(item.get("title", "")), "count": count}
    return Task(values, content=item.content, parents=(item.id,), wanted=count)


def _read_facts(task: Task, reply: Any) -> Iterator[Row | Unusable]:
    passage = task.values["passage"]
    for each in reply["facts"]:
        fact, quote = " ".join(each["fact"].split()), each["quote"].strip()
        if len(words(fact)) < FEWEST_WORDS:
            yield Unusable("too_short", fact)
        elif points_at_source(fact):
            yield Unusable("refers_to_text", fact)
        elif not _quoted(quote, passage):
            yield Unusable("not_quoted", quote[:200])
        elif not numbers(fact) <= numbers(passage):
            yield Unusable("not_in_passage", fact)
        else:
            yield {"fact": fact, "quote": quote}


def _quoted(quote: str, passage: str) -> bool:
    said = words(quote)
    return len(said) >= FEWEST_WORDS and holds(words(passage), said)


# ---- Questions and their support ---------------------------------------------------------------------------------


def _question_task(item: Item) -> Task:
    values = {"fact": item["fact"], "passage": item["passage"]}
    return Task(values, content=item.content, parents=(item.id,))


def _read_question(task: Task, reply: Any) -> Iterator[Row]:
    question, answer = reply["question"].strip(), reply["answer"].strip()
    asked, told, passage = words(question), words(answer), task.values["passage"]
    if not told or len(asked) < FEWEST_WORDS:
        raise Unusable("empty", f"{question[:100]} / {answer[:100]}")
    if points_at_source(question):
        raise Unusable("refers_to_text", question[:200])
    if holds(asked, told):
        raise Unusable("gives_away", question[:200])
    if not numbers(answer) <= numbers(passage) or not set(told) & set(words(passage)):
        raise Unusable("not_in_passage", answer[:200])
    yield {"question": question, "answer": answer}


def _support_task(item: Item) -> Task:
    values = {name: item[name] for name in ("passage", "question", "answer")}
    return Task(values, content={"of": item.id}, parents=(item.id,))


def _read_support(task: Task, reply: Any) -> Iterator[Row]:
    quote = reply["quote"].strip()
    if reply["supported"]:
        said = words(quote)
        if not said or not holds(words(task.values["passage"]), said):
            raise Unusable("not_quoted", quote[:200])
        if not numbers(task.values["answer"]) <= numbers(quote):
            raise Unusable("not_quoted", f"a number of the answer is not in the quote: {quote[:200]}")
    yield {"supported": reply["supported"], "support": quote}


def _supported(written: list[Item], checked: list[Item]) -> Iterator[Sifted]:
    found = {item["of"]: item for item in checked}
    for item in written:
        verdict = found.get(item.id)
        if verdict is None:
            yield Sifted(item, "not_checked", "no usable check")
        elif not verdict["supported"]:
            yield Sifted(item, "unsupported", f"{item['question']} {item['answer']}")
        else:
            yield Sifted(Item(item.id, {**item.content, "quote": verdict["support"]}, item.parents))


# ---- Paraphrases -------------------------------------------------------------------------------------------------


def _paraphrase(session: Session, options: Options, pairs: list[Item]) -> tuple[list[Item], list[Item]]:
    """Paraphrases of the pairs' facts, and verdicts on them: {of, verdicts: the fact's, then each paraphrase's}."""
    count = options.paraphrases
    schema = record(paraphrases=list_of(TEXT, count))
    step = Step("paraphrases", session.template("paraphrases"), _read_paraphrases, schema)
    asked = [
        Task({"fact": item["fact"], "count": count}, {"of": item.id}, (item.id,), wanted=count)
        for item in pairs
    ]
    said = session.ask(step, asked)
    schema = record(verdicts=list_of(one_of(*VERDICTS), count + 1))
    step = Step("faithful", session.template("faithful"), _read_verdicts, schema)
    told = _by_pair(said)
    checks = [_faithful_task(item, told[item.id]) for item in pairs if item.id in told]
    return said, session.ask(step, checks)


def _by_pair(said: list[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in said:
        found.setdefault(item["of"], []).append(item)
    return found


def _read_paraphrases(task: Task, reply: Any) -> Iterator[Row | Unusable]:
    fact = task.values["fact"]
    seen = {tuple(words(fact))}
    for each in reply["paraphrases"]:
        text = " ".join(each.split())
        key = tuple(words(text))
        if len(key) < FEWEST_WORDS:
            yield Unusable("too_short", text)
        elif key in seen:
            yield Unusable("duplicate", text)
        elif numbers(text) != numbers(fact):
            yield Unusable("number_changed", text)
        else:
            seen.add(key)
            yield {"paraphrase": text}


def _faithful_task(pair: Item, said: list[Item]) -> Task:
    statements = [pair["fact"], *(item["paraphrase"] for item in said)]
    values = {"passage": pair["passage"], "statements": statements}
    return Task(values, {"of": pair.id}, tuple(item.id for item in said))


def _read_verdicts(task: Task, reply: Any) -> Iterable[Row]:
    asked, told = len(task.values["statements"]), reply["verdicts"]
    if len(told) != asked:
        raise Unusable("wrong_count", f"{len(told)} verdicts on {asked} statements")
    return [{"verdicts": told}]


# ---- Rows --------------------------------------------------------------------------------------------------------


def _rows(
    session: Session, options: Options, pairs: list[Item], said: list[Item], checked: list[Item]
) -> Iterator[Sifted]:
    """Every row that could be made; paraphrases that are not the passage's are dropped here."""
    told, verdicts = _by_pair(said), {item["of"]: item["verdicts"] for item in checked}
    for pair in pairs:
        question, answer = pair["question"], pair["answer"]
        known = {key: value for key, value in pair.content.items() if key != "passage"}
        context = session.template("with_context").render(passage=pair["passage"], question=question)
        for variant, prompt in (("closed_book", question), ("with_context", context)):
            if variant in options.variants:
                content = {**known, "variant": variant, "prompt": prompt, "completion": answer}
                yield Sifted(Item(content_hash(variant, pair.id), content, (pair.id,)))
        fact, *each = verdicts.get(pair.id, [None])
        for place, item in enumerate(told.get(pair.id, ())):
            content = {**known, "variant": "paraphrase", "prompt": question, "completion": item["paraphrase"]}
            row = Item(content_hash("paraphrase", item.id), content, (item.id,))
            if fact is None:
                yield Sifted(row, "not_checked", "no usable check")
            elif fact != SUPPORTED:
                yield Sifted(row, "unsupported", f"the fact is {fact}: {pair['fact']}")
            else:
                verdict = each[place]
                yield Sifted(row, None if verdict == SUPPORTED else "unfaithful", verdict)


GENERATOR = Generator(
    name="knowledge",
    options=Options,
    generate=generate,
    rows_from=("rows",),
    templates=tuple(
        f"knowledge/{name}"
        for name in ("facts", "question", "support", "paraphrases", "faithful", "with_context")
    ),
    needs=("text",),
    verifiers=("refusal",),
)
