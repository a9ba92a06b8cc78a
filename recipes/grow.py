"""Grow: one round's sampling, judging and curation, from problems to a dataset with its whole history.

Stages on disk: completions -> verdicts -> dataset. Sampling goes in blocks of `sampling.block` indices a problem;
with `sampling.stop_at_cap` a problem whose cap is reached is not asked again, and block b+1 is decided only when all
verdicts of block b are there, so timing never changes what is sampled (docs/contracts.md, crash rule 4).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.curation_files import open_embed, recipe_sets
from recipes.regenerated import close_completions, read_verdicts
from recipes.sampling import Ask, Asker, Domain, Rendered, Row, complete
from recipes.verdicts import Judging
from synth.curate import CurateResult, curate, funnel
from synth.curate.report import report_on
from synth.engines import Sampling
from synth.records import schemas
from synth.records.errors import WorkError
from synth.records.ids import content_hash
from synth.store import Stage
from verifiers.language import detect

if TYPE_CHECKING:
    from recipes.schema import Recipe
    from synth.engines import Engine

HINT = " (Hint: the answer is {reference}.)"


@dataclass(frozen=True)
class Growth:
    """What a Grow left: every dataset row (kept and rejected), the funnel, what the report on it calls out, and what it
    cost."""

    rows: list[Row]
    funnel: dict[str, Any]
    warnings: list[str]
    tokens: int
    completions_saved: int

    @property
    def kept(self) -> list[Row]:
        return [row for row in self.rows if row["decision"] == "kept"]


class Grower:
    """Runs the three stages of one round in `folder` with the model `model_hash` behind `engine_at()`.

    `record`: where the hashes of the sampled tokens are kept (recipes/regenerated.py).
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        domains: list[Domain],
        round_index: int,
        model_hash: str,
        workers: int,
        on_progress: Callable[[str, int, int], None],
        record: Path,
    ) -> None:
        self.recipe, self.folder, self.domains, self.record = recipe, folder, domains, record
        self.round, self.model_hash, self.workers, self.on_progress = (
            round_index,
            model_hash,
            workers,
            on_progress,
        )
        self.by_name = {domain.name: domain for domain in domains}
        self.problems = {domain.name: domain.train(round_index) for domain in domains}
        self.by_id = {p["problem_id"]: p for problems in self.problems.values() for p in problems}
        self._rendered: dict[str, Rendered] = {}
        options = recipe.sampling
        self.sampling = Sampling(
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
        )
        self.completions = Stage(folder / "completions", schemas.completions)
        self.verdicts = Stage(folder / "verdicts", schemas.verdicts)
        self.dataset = Stage(folder / "dataset", schemas.dataset)
        self.done: dict[str, Row] = {}
        self.judged: dict[str, Row] = {}
        self.tokens = 0
        self.check_limits: Callable[[int], None] = lambda tokens: None

    def grow(
        self,
        engine_at: Callable[[], Engine],
        earlier: list[Row],
        previous: list[Row],
        check_limits: Callable[[int], None],
    ) -> Growth:
        """Sample, judge and curate. earlier: kept rows of former rounds, which curation may compare with. previous:
        those of the round before, which the report does. `check_limits` is told the tokens so far, after each
        completion and each block, and raises to stop."""
        self.done = {row["sample_id"]: row for row in self.completions.rows()}
        self.tokens, self.check_limits = sum(map(_tokens, self.done.values())), check_limits
        self.judged = read_verdicts(self.verdicts, self.done)
        saved = self._sample(engine_at)
        if self.recipe.train.rationalise:
            self._rationalise(engine_at)
        completions = close_completions(self.completions, self.done.values(), self.model_hash, self.record)
        verdicts = self.verdicts.close({"model": self.model_hash})
        samples, result = self._curate(completions, verdicts, earlier)
        rows = self._store(result)
        warnings = report_on(result, samples, self.folder / "curation", previous, self._written_columns())
        return Growth(rows, funnel(samples, result), warnings, sum(map(_tokens, completions)), saved)

    def _sample(self, engine_at: Callable[[], Engine]) -> int:
        options = self.recipe.sampling
        size = options.block or options.n
        active = {domain.name: list(self.problems[domain.name]) for domain in self.domains}
        asked = 0
        for start in range(0, options.n, size):
            indices = range(start, min(start + size, options.n))
            asks = [
                ask for domain in self.domains for ask in self._asks(domain, active[domain.name], indices)
            ]
            asked += len(asks)
            self._block(engine_at, asks, lambda ask: self.by_name[ask.domain].render(ask.problem))
            self.check_limits(self.tokens)
            if options.stop_at_cap:
                passes = self._passes(indices.stop)
                cap = self.recipe.curate.cap_per_problem
                active = {
                    name: [p for p in problems if cap is None or passes[p["problem_id"]] < cap]
                    for name, problems in active.items()
                }
        return sum(map(len, self.problems.values())) * options.n - asked

    def _asks(self, domain: Domain, problems: list[Row], indices: range) -> list[Ask]:
        asker = Asker(domain, self.model_hash, self.sampling, self.recipe.rng_seed, self.round)
        return [ask for problem in problems for ask in asker.asks(problem, indices)]

    def _passes(self, before: int) -> Counter[str]:
        """Passed samples of each problem among the indices below `before`: a resumed run finds later verdicts too.

        A pass with less than the round's least reward will not be kept, so it does not count.
        """
        least = self.recipe.curate_options(self.round).min_reward
        return Counter(
            self.done[name]["problem_id"]
            for name, verdict in self.judged.items()
            if verdict["status"] == "pass" and self.done[name]["index"] < before
            if least is None or verdict["reward"] >= least
        )

    def _block(
        self, engine_at: Callable[[], Engine], asks: list[Ask], render: Callable[[Ask], Rendered]
    ) -> None:
        missing = [ask for ask in asks if ask.sample_id not in self.done]
        total, count, sampled, judged = len(asks), len(asks) - len(missing), not missing, 0

        def completed(row: Row) -> None:
            nonlocal count
            self.done[row["sample_id"]] = row
            self.tokens += _tokens(row)
            count += 1
            self.on_progress("sampling", count, total)
            judging.put(row)
            self.check_limits(self.tokens)

        def decided(verdict: Row) -> None:
            nonlocal judged
            self.judged[verdict["sample_id"]] = verdict
            judged += 1
            if sampled:
                self.on_progress("verifying", judged, unjudged)

        waiting = [ask.sample_id for ask in asks if ask.sample_id not in self.judged]
        unjudged = len(waiting)
        with Judging(self.domains, self.by_id, self.verdicts, self.workers, decided) as judging:
            for name in waiting:
                if name in self.done:
                    judging.put(self.done[name])
            if missing:
                complete(engine_at(), missing, render, self.completions, self.round, completed)
            sampled = True

    def _rationalise(self, engine_at: Callable[[], Engine]) -> None:
        """STaR: problems nobody solved are asked once more with the answer as a hint (indices from `sampling.n`)."""
        passes = self._passes(self.recipe.sampling.n)
        asks: list[Ask] = []
        renders: dict[str, Callable[[Ask], Rendered]] = {}
        for domain in self.domains:
            hinted = replace(domain, template_hash=content_hash(domain.template_hash, "hint", HINT))
            unsolved = [
                p for p in self.problems[domain.name] if not passes[p["problem_id"]] and "reference" in p
            ]
            asks += self._asks(hinted, unsolved, range(self.recipe.sampling.n, self.recipe.sampling.n + 1))
            renders[domain.name] = lambda ask, render=domain.render: render(with_hint(ask.problem))
        self._block(engine_at, asks, lambda ask: renders[ask.domain](ask))

    def _curate(
        self, completions: list[Row], verdicts: list[Row], earlier: list[Row]
    ) -> tuple[list[Row], CurateResult]:
        by_id = {row["sample_id"]: row for row in verdicts}
        for row in completions:
            if row["sample_id"] not in by_id or row["problem_id"] not in self.by_id:
                raise WorkError(
                    str(self.folder),
                    f"holds the sample {row['sample_id']}, which this run does not ask for",
                    "its data, prompt or verifier changed since: restore them, or delete the round's folder",
                )
        samples = [self._sample_row(row, by_id[row["sample_id"]]) for row in completions]
        options = self.recipe.curate_options(self.round)
        sets = recipe_sets(self.recipe, self.domains)
        embed = open_embed(options)
        return samples, curate(samples, options, sets, earlier=earlier, embed=embed, language=detect)

    def _store(self, result: CurateResult) -> list[Row]:
        if not self.dataset.closed:
            rows = (self._dataset_row(row) for row in [*result.kept, *result.dropped])
            ordered = sorted(rows, key=lambda row: row["sample_id"])
            self.dataset.write(ordered, {"model": self.model_hash, "kept": len(result.kept)})
        return self.dataset.rows()

    def _written_columns(self) -> tuple[str, ...]:
        """What the model wrote of the compared columns: prompts say nothing about its diversity."""
        columns = self.recipe.curate.text_columns
        return tuple(name for name in columns if name != "prompt") or columns

    def _sample_row(self, completion: Row, verdict: Row) -> Row:
        problem = self.by_id[completion["problem_id"]]
        return {
            **completion,
            "rendered": completion["prompt"],
            "prompt": problem["prompt"],
            "status": verdict["status"],
            "reward": verdict["reward"],
            "reason": verdict["reason"],
        }

    def _plain(self, domain: str, problem_id: str) -> Rendered:
        """The problem rendered without a hint, once for all its samples."""
        if problem_id not in self._rendered:
            self._rendered[problem_id] = self.by_name[domain].render(self.by_id[problem_id])
        return self._rendered[problem_id]

    def _dataset_row(self, row: Row) -> Row:
        """Training columns: the sampled token ids themselves where the engine gave them, never re-tokenised text."""
        rationalised = row["index"] >= self.recipe.sampling.n
        prompt, prompt_ids = row["rendered"], row["prompt_token_ids"]
        plain = self._plain(row["domain"], row["problem_id"])
        if rationalised:
            # The hint is stripped: the model learns to reach the answer from the plain question.
            prompt, prompt_ids = plain.text, list(plain.token_ids) if plain.token_ids is not None else None
        completion_ids = row["completion_token_ids"]
        token_ids = loss_mask = None
        if prompt_ids is not None and completion_ids is not None:
            token_ids = [*prompt_ids, *completion_ids]
            loss_mask = [0] * len(prompt_ids) + [1] * len(completion_ids)
        return {
            **{name: row.get(name) for name in schemas.dataset().names},
            "prompt": prompt,
            "token_ids": token_ids,
            "loss_mask": loss_mask,
            "retokenised": token_ids is None,
            "messages": json.dumps(plain.messages, ensure_ascii=False) if plain.messages else None,
            "source": "rationalised" if rationalised else "sampled",
        }


def _tokens(row: Row) -> int:
    return len(row["completion_token_ids"] or ())


def with_hint(problem: Mapping[str, Any]) -> Row:
    """The problem with its reference told in the prompt (STaR, arXiv 2203.14465, section 3.3)."""
    return {**problem, "prompt": problem["prompt"] + HINT.replace("{reference}", str(problem["reference"]))}
