"""Measuring embedding models: retrieval sets and their metrics, sentence similarity; indexes to search by hand."""
