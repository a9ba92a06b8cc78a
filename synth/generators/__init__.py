"""Generators of problems and samples."""
