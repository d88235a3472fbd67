"""Recipes: what a user wants compared, trained and measured."""

from pewb.recipe.distinctions import distinctions
from pewb.recipe.load import Cell, LoadedRecipe, load_recipe, parse_recipe, with_chosen
from pewb.recipe.sections import (
    DeviceSection,
    Limit,
    Precision,
    Quantization,
    Recipe,
    TaskTable,
    Training,
    Tune,
)

__all__ = [
    "Cell",
    "DeviceSection",
    "Limit",
    "LoadedRecipe",
    "Precision",
    "Quantization",
    "Recipe",
    "TaskTable",
    "Training",
    "Tune",
    "distinctions",
    "load_recipe",
    "parse_recipe",
    "with_chosen",
]
