"""Measurement: parameters and memory of a run."""
