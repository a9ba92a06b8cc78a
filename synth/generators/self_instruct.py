"""Self-Instruct (Wang et al. 2022, arXiv 2212.10560): instructions from a few seed tasks, then their instances.

1. A prompt shows 6 seed tasks and 2 tasks written before, and asks for further ones (section 2.2).
2. An instruction is new when its ROUGE-L with every known one is below 0.7; what asks for more than text, is shorter
   than 4 words or longer than 150 is left out.
3. Each is told apart first: classification or not.
4. Instances: open tasks get input, then output; classification tasks labels first, then an input for each, since
   input-first gives mostly one label.

Departures: many prompts share one pool (`batch` of them; the paper adds to the pool after every prompt), so that they
can be asked at once; replies are JSON instead of numbered lists; several instructions a prompt are asked for by number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from synth.generators.base import Generator, Item, Row, Step, Task, Unusable
from synth.generators.novelty import Novelty, novel
from synth.generators.options import at_least, share, similarity
from synth.generators.procedural.draw import Draw
from synth.generators.replies import TEXT, TRUTH, list_of, record
from synth.generators.session import Session

SHOWN_KINDS = 4  # examples of each kind in the prompt that tells them apart
IDLE = 2  # batches in a row
SHORTEST, LONGEST = 4, 150  # words, as in the authors' code
# Words of the authors' list: what a text assistant cannot see, hear, open or draw.
_NOT_TEXT = re.compile(
    r"(?i)\b(images?|graphs?|pictures?|photos?|files?|maps?|draw|plot|go to|videos?|audio|music|flowcharts?"
    r"|diagrams?)\b"
)
_BEGINS_WELL = re.compile(r"\w", re.UNICODE)


@dataclass(frozen=True)
class Options:
    """Options of the generator `self_instruct`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    count: int = 1000
    """New instructions wanted."""
    per_prompt: int = 8
    """Instructions a prompt asks for."""
    seed_examples: int = 6
    """Seed tasks a prompt shows."""
    own_examples: int = 2
    """Tasks written before that a prompt shows, as soon as there are any."""
    batch: int = 256
    """Prompts that share one pool of tasks written before."""
    novelty: float = 0.7
    """ROUGE-L from which an instruction is called a repetition."""
    min_new: float = 0.02
    """Stop when of two batches in a row a smaller share of the instructions is new: nothing else comes to mind."""
    instances: int = 1
    """Instances a task gets."""

    def __post_init__(self) -> None:
        at_least(self, 1, "count", "per_prompt", "seed_examples", "batch", "instances")
        at_least(self, 0, "own_examples")
        share(self, "min_new")
        similarity(self, "novelty")


def generate(session: Session, options: Options, seeds: list[Item]) -> list[Item]:
    """Rows `prompt, completion, task, input, is_classification` for up to `count` new instructions."""
    instructions = _instructions(session, options, seeds)
    kinds = session.ask(_kind_step(session), _kind_tasks(session, seeds, instructions))
    made = []
    for name, wanted in (("open", False), ("classification", True)):
        chosen = [item for item in kinds if item["is_classification"] is wanted]
        schema = record(instances=list_of(record(input=TEXT, output=TEXT), options.instances))
        step = Step(name, session.template(name), _Instances(session), schema)
        made += session.ask(step, [_instance_task(item, options.instances) for item in chosen])
    return made


def _instructions(session: Session, options: Options, seeds: list[Item]) -> list[Item]:
    known = Novelty(options.novelty)
    for seed in seeds:
        known.add(seed.id, seed["instruction"])
    template, made, asked = session.template("instructions"), list[Item](), 0
    schema = record(instructions=list_of(TEXT, options.per_prompt))
    step = Step("instructions", template, _read_instructions, schema)
    idle = 0
    while len(made) < options.count and idle < IDLE:
        prompts = min(options.batch, -(-(options.count - len(made)) // options.per_prompt))
        tasks = [_instruction_task(session, options, seeds, made, asked + i) for i in range(prompts)]
        written, asked = session.ask(step, tasks), asked + prompts
        new = session.sift("novel", lambda written=written: novel(known, written, "instruction"))
        for item in new:
            known.add(item.id, item["instruction"])
        made += new
        exhausted = not new or len(new) < options.min_new * prompts * options.per_prompt
        idle = idle + 1 if exhausted else 0
    return made[: options.count]


def _instruction_task(
    session: Session, options: Options, seeds: list[Item], made: list[Item], index: int
) -> Task:
    draw = session.draw("instructions", index)
    own = _some(draw, made, options.own_examples)
    given = draw.sample(seeds, min(options.seed_examples + options.own_examples - len(own), len(seeds)))
    shown = draw.sample([*given, *own], len(given) + len(own))
    values = {"examples": [item["instruction"] for item in shown], "count": options.per_prompt}
    return Task(values, parents=tuple(item.id for item in shown), wanted=options.per_prompt)


def _some(draw: Draw, items: list[Item], count: int) -> list[Item]:
    """Up to `count` different items; of a pool of any size, without copying it."""
    chosen: dict[int, Item] = {}
    while len(chosen) < min(count, len(items)):
        place = draw.integer(0, len(items) - 1)
        chosen.setdefault(place, items[place])
    return list(chosen.values())


def _read_instructions(task: Task, reply: Any) -> Iterator[Row | Unusable]:
    for text in reply["instructions"]:
        instruction = " ".join(text.split())
        size = len(instruction.split())
        if not SHORTEST <= size <= LONGEST:
            yield Unusable("too_short" if size < SHORTEST else "too_long", instruction[:200])
        elif _NOT_TEXT.search(instruction):
            yield Unusable("not_for_text", instruction[:200])
        elif not _BEGINS_WELL.match(instruction):
            yield Unusable("no_instruction", instruction[:200])
        else:
            yield {"instruction": instruction}


def _kind_step(session: Session) -> Step:
    schema = record(is_classification=TRUTH)
    return Step("kind", session.template("kind"), lambda task, reply: [reply], schema=schema)


def _kind_tasks(session: Session, seeds: list[Item], instructions: list[Item]) -> list[Task]:
    told = [seed for seed in seeds if isinstance(seed.get("is_classification"), bool)]
    kinds = [[seed for seed in told if seed["is_classification"] is kind] for kind in (True, False)]
    tasks = []
    for index, item in enumerate(instructions):
        draw = session.draw("kind", index)
        shown = [seed for kind in kinds for seed in draw.sample(kind, min(SHOWN_KINDS, len(kind)))]
        examples = [
            {"instruction": seed["instruction"], "is_classification": seed["is_classification"]}
            for seed in draw.sample(shown, len(shown))
        ]
        values = {"examples": examples, "instruction": item["instruction"]}
        tasks.append(Task(values, content={"instruction": item["instruction"]}, parents=(item.id,)))
    return tasks


def _instance_task(item: Item, count: int) -> Task:
    content = {"task": item["instruction"], "is_classification": item["is_classification"]}
    values = {"instruction": item["instruction"], "count": count}
    return Task(values, content=content, parents=(item.id,), wanted=count)


class _Instances:
    """Reads the instances of a task; one input with two outputs, or an output that repeats its input, is no example."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __call__(self, task: Task, reply: Any) -> Iterator[Row | Unusable]:
        inputs: set[str] = set()
        instruction = task.values["instruction"]
        for instance in reply["instances"]:
            given, output = instance["input"].strip(), instance["output"].strip()
            if not output:
                yield Unusable("empty", "an instance without output")
            elif task.content["is_classification"] and not given:
                yield Unusable("empty", "a classification without input")
            elif output in (given, instruction):
                yield Unusable("copied", output[:200])
            elif given in inputs:
                yield Unusable("duplicate", given[:200])
            elif self.session.is_refusal(output):
                yield Unusable("refused", output[:200])
            else:
                inputs.add(given)
                prompt = f"{instruction}\n\n{given}" if given else instruction
                yield {"prompt": prompt, "completion": output, "input": given}


GENERATOR = Generator(
    name="self_instruct",
    options=Options,
    generate=generate,
    rows_from=("open", "classification"),
    templates=(
        "self_instruct/instructions",
        "self_instruct/kind",
        "self_instruct/open",
        "self_instruct/classification",
    ),
    needs=("instruction",),
    verifiers=("refusal",),
)
