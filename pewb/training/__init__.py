"""Training: batches to steps to a tuned model."""
