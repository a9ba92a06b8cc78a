"""Recipes of kind `safety`: align a model, attack it by harmful fine-tuning, report what survived."""
