"""Which kinds of recipes there are, and the schema of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipes.embedding.schema import EMBEDDING, EmbeddingRecipe
from recipes.generation.schema import GENERATE, GenerationRecipe
from recipes.safety.schema import SAFETY, SafetyRecipe
from recipes.schema import Recipe

AnyRecipe = Recipe | GenerationRecipe | EmbeddingRecipe | SafetyRecipe
OWN_SCHEMA: dict[str, type[GenerationRecipe] | type[EmbeddingRecipe] | type[SafetyRecipe]] = {
    GENERATE: GenerationRecipe,
    EMBEDDING: EmbeddingRecipe,
    SAFETY: SafetyRecipe,
}
"""Kinds with a schema of their own; the others share `Recipe`."""
KINDS: tuple[str, ...] = (*Recipe.model_fields["kind"].annotation.__args__, *OWN_SCHEMA)  # type: ignore[union-attr]


def schema_of(
    tree: Mapping[str, Any],
) -> type[Recipe] | type[GenerationRecipe] | type[EmbeddingRecipe] | type[SafetyRecipe]:
    """The schema that a recipe's `kind` means; that of self-training for one nobody knows."""
    kind = tree.get("kind")
    return OWN_SCHEMA.get(kind, Recipe) if isinstance(kind, str) else Recipe
