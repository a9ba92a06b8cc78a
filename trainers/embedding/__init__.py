"""Contrastive tuning's parts, each once: rows, batches, tokens, encoder, loss, loop."""
