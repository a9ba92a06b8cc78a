"""The numerics of training, each once: masks, batching, loss, log-probs, optimizer, checkpoints, export."""
