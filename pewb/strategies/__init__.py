"""The table of strategies: a name, and the class that holds its keys and its facts."""

from importlib.metadata import entry_points

from pewb.strategies.bottleneck_adapter import BottleneckAdapter
from pewb.strategies.full import Full
from pewb.strategies.head_only import HeadOnly
from pewb.strategies.lora import Lora
from pewb.strategies.prefix_tuning import PrefixTuning
from pewb.strategies.prompt_tuning import PromptTuning
from pewb.strategies.strategy import Strategy
from pewb.strategies.top_layers import TopLayers

_BUILT_IN: dict[str, type[Strategy]] = {
    "full": Full,
    "lora": Lora,
    "bottleneck_adapter": BottleneckAdapter,
    "prefix_tuning": PrefixTuning,
    "prompt_tuning": PromptTuning,
    "top_layers": TopLayers,
    "head_only": HeadOnly,
}


def strategies() -> dict[str, type[Strategy]]:
    """Return every strategy by name: the built-in ones and those that installed packages register (`pewb.strategies`)."""
    return _BUILT_IN | {entry.name: entry.load() for entry in entry_points(group="pewb.strategies")}


__all__ = ["Strategy", "strategies"]
