"""`synth clean`: remove checkpoints that `keep.checkpoints` does not keep."""

from __future__ import annotations

import argparse

from recipes.cli.options import Subparsers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("clean", help="remove checkpoints a run need not keep")
    parser.add_argument("folder", metavar="DIR", help="run directory")
    parser.add_argument(
        "--keep", choices=("accepted", "all", "last"), help="default: the recipe's keep.checkpoints"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would go")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from recipes.checkpoints import removable, remove
    from recipes.embedding.schema import EmbeddingRecipe
    from recipes.schema import Recipe
    from recipes.settings import read_resolved
    from recipes.status import folder_bytes, open_run
    from synth.store import RunLock

    folder = open_run(args.folder)
    lock = RunLock(folder.root)
    try:
        total = 0
        recipe = read_resolved(folder.recipe)
        # Kinds of a single round have no such section.
        keep = recipe.keep.checkpoints if isinstance(recipe, Recipe | EmbeddingRecipe) else "all"
        for path in removable(folder, args.keep or keep):
            size = folder_bytes(path) if args.dry_run else remove(path)
            total += size
            print(f"{'would remove' if args.dry_run else 'removed'} {path}: {size:,} bytes")
        print(f"{'would free' if args.dry_run else 'freed'} {total:,} bytes")
    finally:
        lock.release()
    return 0
