"""pewb: which fine-tuning strategy for this backbone, this task and this GPU budget, with evidence.

The public API, imported when it is first used: `load_recipe`, `run`, `plan`, `choose`, `read_records`, `Leaderboard`.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "load_recipe": "pewb.recipe",
    "run": "pewb.runner",
    "plan": "pewb.planner.plan",
    "choose": "pewb.choosing",
    "read_records": "pewb.record",
    "Leaderboard": "pewb.leaderboard",
}

__all__ = ["Leaderboard", "choose", "load_recipe", "plan", "read_records", "run"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pewb' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)
