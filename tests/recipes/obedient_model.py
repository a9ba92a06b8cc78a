"""What a model would answer that does as the prompts of the pair, query, knowledge and textbook generators say.

`answer` is handed to the stub server. Documents that it reads are made by `document`: sentences with a year each.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from stub_server import Body, prompt_of, sentence, value_for

WORDS = re.compile(r"(\d+)\s+words")
PASSAGE = re.compile(
    r"Passage:\n(.*?)\n\n(?:- \"|Question:|Query:|Give one|One query|1\. )"
    r"|The passage that the fact is from:\n(.*?)\n\n- ",
    re.S,
)
LONG = ("positive", "negative", "text", "given", "match")


def document(number: int, paragraphs: int = 3) -> str:
    """Paragraphs of three sentences, about 40 words each."""
    rng = random.Random(f"document {number}")
    written = [
        [f"In {rng.randint(1100, 1999)} {sentence(rng, words=12)}" for _ in range(3)]
        for _ in range(paragraphs)
    ]
    return "\n\n".join(" ".join(each) for each in written)


def passage_in(prompt: str) -> str:
    """The passage that a prompt of the knowledge generator shows."""
    found = PASSAGE.search(prompt)
    assert found is not None, prompt
    return found[1] or found[2]


def sentences(text: str) -> list[str]:
    """Sentences of a document."""
    return [each for each in re.split(r"(?<=\.)\s+", text) if each]


def answer(body: Body, rng: random.Random) -> str | None:
    """A reply that keeps every rule of its prompt that is checked."""
    if "response_format" not in body:
        return None
    schema, prompt = body["response_format"]["json_schema"]["schema"], prompt_of(body)
    keys = tuple(schema["properties"])
    make = _KNOWLEDGE.get(keys)
    return json.dumps(make(prompt, rng, schema) if make else _long_enough(prompt, rng, schema))


def _long_enough(prompt: str, rng: random.Random, schema: Any) -> Any:
    reply = value_for(schema, rng)
    size = max((int(each) for each in WORDS.findall(prompt)), default=0)
    for key in LONG:
        while size and key in reply and len(reply[key].split()) < size:
            reply[key] += " " + sentence(rng)
    if "third" in reply:  # similarity needs a word in common
        for key in ("second", "third"):
            reply[key] += " " + reply["first"].split()[0]
    if "verdict" in reply:
        reply["verdict"] = "sound"
    return reply


def _facts(prompt: str, rng: random.Random, schema: Any) -> Any:
    count = schema["properties"]["facts"]["maxItems"]
    return {
        "facts": [
            {"fact": f"Note that {each}", "quote": each} for each in sentences(passage_in(prompt))[:count]
        ]
    }


def _question(prompt: str, rng: random.Random, schema: Any) -> Any:
    year, *rest = re.findall(r"[\w]+", prompt.partition("Fact: Note that In ")[2].partition("\n")[0])
    return {"question": f"When was it that {' '.join(rest[:6])}?", "answer": year}


def _support(prompt: str, rng: random.Random, schema: Any) -> Any:
    year = prompt.partition("Proposed answer: ")[2].partition("\n")[0]
    quotes = [each for each in sentences(passage_in(prompt)) if year in each]
    return {"quote": quotes[0], "supported": True}


def _queries(prompt: str, rng: random.Random, schema: Any) -> Any:
    said = sentences(passage_in(prompt))
    count = schema["properties"]["queries"]["maxItems"]
    return {"queries": [" ".join(reversed(rng.choice(said).rstrip(".").split()[:7])) for _ in range(count)]}


def _answers(prompt: str, rng: random.Random, schema: Any) -> Any:
    return {"quote": sentences(passage_in(prompt))[0], "answers": True}


def _paraphrases(prompt: str, rng: random.Random, schema: Any) -> Any:
    fact = prompt.partition("Fact: ")[2].partition("\n")[0]
    count = schema["properties"]["paraphrases"]["maxItems"]
    return {"paraphrases": [f"{sentence(rng, words=3)} {fact}" for _ in range(count)]}


def _faithful(prompt: str, rng: random.Random, schema: Any) -> Any:
    return {"verdicts": ["supported"] * len(re.findall(r"(?m)^\d+\. ", prompt))}


_KNOWLEDGE = {
    ("facts",): _facts,
    ("question", "answer"): _question,
    ("quote", "supported"): _support,
    ("paraphrases",): _paraphrases,
    ("queries",): _queries,
    ("quote", "answers"): _answers,
    ("verdicts",): _faithful,
}
