"""Options of `synth curate`: those of a recipe's `curate`, with defaults for a file of unknown origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipes.checks import ONLY_ROUNDS
from recipes.curation_files import HELD_OUT
from recipes.settings import section_options
from synth.curate import CurateOptions
from synth.records.errors import InputError

DEFAULTS: dict[str, Any] = {
    # Without a recipe there are no held-out problems, and templates are not shared on purpose.
    "decontaminate": {"against": [], "ngram": [8, 13], "reworded": 0.6},
    "cap_per_problem": None,
}


def curation_options(overrides: Sequence[str]) -> CurateOptions:
    """The options that `--set` strings say. Raises RecipeError (an InputError) naming what is wrong with them."""
    options = section_options(CurateOptions, overrides, "curate", DEFAULTS)
    for name, off in ONLY_ROUNDS.items():
        if getattr(options, name) != off:
            seen = "a file has no rounds"
            raise InputError(f"--set {name}", seen, "name earlier exports in dedup.against instead")
    if options.decontaminate and HELD_OUT in options.decontaminate.against:
        fix = "name the recipe's .yaml file: its held-out problems are meant"
        raise InputError("decontaminate.against", f"'{HELD_OUT}', which only a recipe has", fix)
    return options
