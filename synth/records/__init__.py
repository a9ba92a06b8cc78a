"""Records every room may use: user-facing errors, JSONL, ids and hashes, column schemas."""
