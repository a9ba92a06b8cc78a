"""Where the final answer stands in a completion: one rule, one span, and whether it was ambiguous.

Rules, in order of authority (the first that finds something decides):

1. only what comes after the last think block counts; a think block that never closes means no answer;
2. ``<answer>...</answer>``; 3. "final answer is ..." after the last box; 4. ``\\boxed{...}`` by brace count;
5. ``#### x``; 6. "final answer: ..."; 7. a line ``A: x``; 8. "answer is/: ..."; 9. the whole text, if it is
   nothing but an expression; 10. the last formula or number.

Several different boxes that are not one list ("``\\boxed{1}`` and ``\\boxed{2}``" is one) are ambiguous. The
caller decides whether the candidates agree in value: extraction compares text only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

THINK_OPEN = re.compile(
    r"<(?:think|thinking|thought|reasoning)>|\[THINK\]|<\|begin_of_thought\|>", re.IGNORECASE
)
THINK_CLOSE = re.compile(
    r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]|<\|end_of_thought\|>", re.IGNORECASE
)
# What follows one of these is another turn, not this answer.
TURN_END = re.compile(r"<\|(?:im_end|im_start|eot_id|end_of_text|endoftext|end|user)\|>|</s>|<end_of_turn>")
BOX = re.compile(r"\\(?:boxed|fbox|framebox)\b\s*")
ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
HASHES = re.compile(r"####[ \t]*([^\n]+)")
A_LINE = re.compile(r"^[ \t]*A:[ \t]*([^\n]+)$", re.MULTILINE)
FINAL = re.compile(r"final\s+answer(?:\s+is)?(?:\*\*)?\s*(?::|\bis\b)?\s*(?:\*\*)?\s*", re.IGNORECASE)
FINAL_IS = re.compile(r"final\s+answer\s+is\s*:?\s*", re.IGNORECASE)
ANSWER = re.compile(
    r"\banswer(?:\*\*)?\s*(?::|=|\bis\b|\bwould be\b|\bshould be\b|\btherefore\b|(?=\$|\\\())\s*(?:\*\*)?:?\s*",
    re.IGNORECASE,
)
# Between two boxes of one list: blanks, punctuation, "and"/"or", math delimiters, "name =".
CONNECTOR = re.compile(
    r"(?:\s|[,;.$&]|\\[()\[\],;:!\\ ]|\\q?quad|\band\b|\bor\b"
    r"|\\(?:text|mathrm|textrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}"
    r"|[A-Za-z](?:_\{?\w+\}?)?(?:\(\w\))?\s*=)*"
)
FORMULA = re.compile(
    r"\$\$(?P<a>.+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)|(?<!\\)\$(?P<d>[^$\n]+?)(?<!\\)\$", re.DOTALL
)
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?![\d.])|\d+)(?:[.,]\d+)?|\.\d+"
NUMBER = re.compile(rf"(?:(?<![\w.)\]])[-+\u2212])?(?:{_NUMBER})(?:[eE][-+]?\d+)?(?:\s*/\s*(?:{_NUMBER}))?")
AFTER_NUMBER = re.compile(r"\s*(?:\\?%|percent\b|pct\b)", re.IGNORECASE)
PROSE = re.compile(r"[A-Za-z]{2,}[^\S\n]+[A-Za-z]{2,}[^\S\n]+[A-Za-z]{2,}")
WRAPPED = re.compile(r"\\(?:text|mbox|textrm|textbf|mathrm)\s*\{[^{}]*\}")
# Two words in a row, a calculator note, "label: 5": not a bare expression.
NOT_BARE = re.compile(r"[A-Za-z]{3,}[^\S\n]+[A-Za-z]{2,}|<<|:\s+\d")
SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z\[(]|\s*$)|\n")
NAMED_CHOICE = re.compile(
    r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*\**\(?([A-J])\)?(?![A-Za-z'])", re.IGNORECASE
)
LETTER_IN_BRACKETS = re.compile(r"(?<![A-Za-z])\(?([A-J])\)")
MAX_WHOLE = 400


@dataclass(frozen=True)
class Extraction:
    """An answer as written: its text, its place in the completion, the rule, and rival candidates."""

    value: str
    span: tuple[int, int]
    rule: str
    rivals: tuple[str, ...] = ()
    formula: bool = False  # it stood in a box or between math delimiters

    @property
    def ambiguous(self) -> bool:
        """More than one different answer was given under the same rule."""
        return bool(self.rivals)


def answer_region(text: str) -> tuple[int, int] | None:
    """Span outside think blocks and before the next turn; None if a think block never closes."""
    end = len(text)
    if "<" not in text and "[" not in text:
        return 0, end
    start = 0
    for match in THINK_CLOSE.finditer(text):
        start = match.end()
    if THINK_OPEN.search(text, start):
        return None
    turn = TURN_END.search(text, start)
    # A template may open with such a token; only one with text before it ends the answer.
    if turn and text[start : turn.start()].strip():
        end = turn.start()
    return start, end


def extract(text: str) -> Extraction | None:
    """The final answer of a completion, or None."""
    region = answer_region(text)
    if region is None:
        return None
    start, end = region
    part = text[start:end]
    found = _by_rule(part)
    return replace(found, span=(found.span[0] + start, found.span[1] + start)) if found else None


def extract_choice(text: str) -> Extraction | None:
    """The last letter of a choice that is named as one: "option B", "(B)"."""
    region = answer_region(text)
    if region is None:
        return None
    for pattern in (NAMED_CHOICE, LETTER_IN_BRACKETS):
        found = [
            Extraction(match.group(1), match.span(1), "choice") for match in pattern.finditer(text, *region)
        ]
        if found:
            return _agree(found)
    return None


def extract_formula(text: str) -> Extraction | None:
    """The last formula, for callers that accept formulas only."""
    region = answer_region(text)
    found = None
    for match in FORMULA.finditer(text, *region) if region else ():
        if not PROSE.search(WRAPPED.sub(" ", match.group())):
            found = _with_suffix(text, match.start(), match.end(), _inside(match), "last_formula")
    return found


def _by_rule(text: str) -> Extraction | None:
    lower = text.lower()
    if "<answer>" in lower and (tagged := _answer_tag(text)):
        return tagged
    if "\\boxed" in text or "\\fbox" in text or "\\framebox" in text:
        found, last = _boxed(text)
        if "final" in lower and (stated := _last_statement(text, FINAL_IS, "final_answer", after=last)):
            return stated
        return found
    if "####" in text and (marked := _marked(text, HASHES, "hashes")):
        return marked
    if "answer" in lower and (stated := _last_statement(text, FINAL, "final_answer")):
        return stated
    if "A:" in text and (marked := _marked(text, A_LINE, "answer_line")):
        return marked
    if "answer" in lower and (stated := _last_statement(text, ANSWER, "answer")):
        return stated
    return _whole(text) or _last_value(text, 0, len(text), "last_value")


def _answer_tag(text: str) -> Extraction | None:
    spans = [match.span(1) for match in ANSWER_TAG.finditer(text) if match.group(1).strip()]
    found = []
    for start, end in spans:
        body = text[start:end]
        inner = _boxed(body)[0] if "\\boxed" in body else None
        found.append(
            Extraction(
                inner.value, (inner.span[0] + start, inner.span[1] + start), "answer_tag", inner.rivals
            )
            if inner
            else Extraction(body.strip(), (start, end), "answer_tag")
        )
    return _agree(found)


def _agree(found: list[Extraction]) -> Extraction | None:
    """The last of several; the others, where they read differently, become its rivals."""
    if not found:
        return None
    last = found[-1]
    key = _text_key(last.value)
    rivals = {other.value: None for other in found[:-1] if _text_key(other.value) != key}
    return replace(last, rivals=tuple(rivals) + last.rivals) if rivals else last


def _text_key(value: str) -> str:
    return re.sub(
        r"\s+|\\[,;:! ]|\$|\.$", "", value.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    )


def matching_brace(text: str, start: int) -> int:
    """Index of the `}` that closes the `{` at `start`, or -1. Escaped braces do not count."""
    depth = 0
    position = start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 2
            continue
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return -1


def boxes(text: str) -> tuple[list[tuple[int, int, str]], bool]:
    """Outermost boxes as (start, end, content), and whether the last one was cut off."""
    found: list[tuple[int, int, str]] = []
    position = 0
    while match := BOX.search(text, position):
        begin = match.end()
        if begin < len(text) and text[begin] == "{":
            close = matching_brace(text, begin)
            if close < 0:
                return found, True
            content, position = text[begin + 1 : close], close + 1
        else:
            token = re.compile(r"\\[A-Za-z]+|[^\s\\${}]+").match(text, begin)
            if token is None:
                position = begin
                continue
            content, position = token.group(), token.end()
        found.append((match.start(), position, unbox(content)))
    return found, False


def unbox(content: str) -> str:
    """Content with boxes inside it replaced by what they hold."""
    for _ in range(4):
        match = BOX.search(content)
        if not match or match.end() >= len(content) or content[match.end()] != "{":
            break
        close = matching_brace(content, match.end())
        if close < 0:
            break
        content = content[: match.start()] + content[match.end() + 1 : close] + content[close + 1 :]
    return content.strip()


def _boxed(text: str) -> tuple[Extraction | None, int]:
    """The boxed answer (None if there is none or the last is cut off) and where the last box ends."""
    found, cut = boxes(text)
    last = found[-1][1] if found else 0
    found = [box for box in found if box[2]]
    if cut or not found:
        return None, last
    groups: list[list[tuple[int, int, str]]] = []
    for box in found:
        if groups and CONNECTOR.fullmatch(text, groups[-1][-1][1], box[0]):
            groups[-1].append(box)
        else:
            groups.append([box])
    answers = []
    for group in groups:
        parts = list(dict.fromkeys(part for _, _, part in group))
        suffix = AFTER_NUMBER.match(text.replace("$", " "), group[-1][1])
        value = ", ".join(parts) + ("\\%" if suffix and not parts[-1].endswith("%") else "")
        answers.append(Extraction(value, (group[0][0], group[-1][1]), "boxed", formula=True))
    return _agree(answers), last


def _marked(text: str, pattern: re.Pattern[str], rule: str) -> Extraction | None:
    """Lines that carry the answer by themselves (`#### 18`, `A: 18`)."""
    found = []
    for match in pattern.finditer(text):
        value = match.group(1).strip().strip("*").strip()
        if value:
            found.append(Extraction(value, match.span(1), rule))
    return _agree(found)


def _last_statement(text: str, pattern: re.Pattern[str], rule: str, after: int = 0) -> Extraction | None:
    """What the last "answer is ..." says, up to the end of its sentence."""
    matches = list(pattern.finditer(text, after))
    for match in reversed(matches):
        start = match.end()
        while start < len(text) and text[start] in " \t\n*:":
            start += 1
        if found := _statement(text, start, rule):
            return found
    return None


def _statement(text: str, start: int, rule: str) -> Extraction | None:
    if start >= len(text):
        return None
    formula = FORMULA.match(text, start)
    if formula and not PROSE.search(formula.group()):
        return _with_suffix(text, formula.start(), formula.end(), _inside(formula), rule)
    end = SENTENCE_END.search(text, start)
    stop = end.start() if end else len(text)
    body = text[start:stop].strip().strip("*").strip()
    if not body:
        return None
    if PROSE.search(body) or ("$" in body and FORMULA.search(body)):
        return _last_value(text, start, stop, rule)
    return Extraction(body, (start, stop), rule)


def _inside(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _with_suffix(text: str, start: int, end: int, value: str, rule: str, formula: bool = True) -> Extraction:
    """A percent sign or word right after the formula or number belongs to the answer."""
    if suffix := AFTER_NUMBER.match(text, end):
        return Extraction(
            value if value.endswith("%") else value + "\\%", (start, suffix.end()), rule, (), formula
        )
    return Extraction(value, (start, end), rule, (), formula)


def _whole(text: str) -> Extraction | None:
    """The whole text if it is one short expression rather than prose."""
    body = text.strip()
    if len(body) > MAX_WHOLE or not (any(map(str.isalnum, body)) or "\\" in body):
        return None
    start = text.index(body)
    formula = FORMULA.fullmatch(body)
    if formula and not PROSE.search(WRAPPED.sub(" ", formula.group())):
        return Extraction(_inside(formula), (start, start + len(body)), "whole", formula=True)
    words = re.sub(r"\\[A-Za-z]+", " ", body)
    if "\n" in body or "$" in body or "\\(" in body or "\\[" in body or NOT_BARE.search(words):
        return None
    return Extraction(body.strip("*").strip(), (start, start + len(body)), "whole")


def _last_value(text: str, start: int, end: int, rule: str) -> Extraction | None:
    """The last formula, or the last number outside formulas, whichever comes later."""
    formula = None
    for match in FORMULA.finditer(text, start, end) if "$" in text or "\\(" in text or "\\[" in text else ():
        if not PROSE.search(match.group()):
            formula = match
    number = None
    for match in NUMBER.finditer(text, formula.end() if formula else start, end):
        number = match
    if number is not None:
        return _with_suffix(text, number.start(), number.end(), number.group().strip(), rule, formula=False)
    if formula is not None:
        return _with_suffix(text, formula.start(), formula.end(), _inside(formula), rule)
    return None
