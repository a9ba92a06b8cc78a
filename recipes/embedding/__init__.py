"""Recipes of kind `embedding`: pairs are read or written, verified and curated, negatives mined, an embedder tuned."""
