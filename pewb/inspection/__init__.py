"""What a model will see of a task: counts, lengths, classes, what is there twice, what is cut, and how examples read."""

from pewb.inspection.cleaning import Cleaned, clean
from pewb.inspection.report import DataReport, ShownExample, SplitReport, inspect

__all__ = ["Cleaned", "DataReport", "ShownExample", "SplitReport", "clean", "inspect"]
