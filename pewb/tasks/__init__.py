"""The table of task families: a kind, and the class that holds its keys."""

from pewb.tasks.text_classification import Examples, Split, TextClassification, read_examples

TASKS: dict[str, type[TextClassification]] = {"text_classification": TextClassification}

__all__ = ["TASKS", "Examples", "Split", "TextClassification", "read_examples"]
