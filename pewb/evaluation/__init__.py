"""Evaluation: predictions, metrics, intervals."""
