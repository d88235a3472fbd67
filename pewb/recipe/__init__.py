"""Recipes: what a user wants compared, trained and measured."""

from pewb.recipe.distinctions import distinctions
from pewb.recipe.keys import Key, recipe_keys
from pewb.recipe.load import Cell, LoadedRecipe, load_recipe, parse_recipe, with_chosen
from pewb.recipe.sections import (
    Augment,
    DeviceSection,
    Generation,
    Limit,
    Precision,
    Quantization,
    Recipe,
    TaskTable,
    Training,
    Tune,
)

__all__ = [
    "Augment",
    "Cell",
    "DeviceSection",
    "Generation",
    "Key",
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
    "recipe_keys",
    "with_chosen",
]
