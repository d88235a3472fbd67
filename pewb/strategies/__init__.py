"""The table of strategies: a name, and the class that holds its keys and its facts."""

from importlib.metadata import entry_points

from pewb.strategies.adalora import AdaLora
from pewb.strategies.bitfit import BitFit
from pewb.strategies.bottleneck_adapter import BottleneckAdapter
from pewb.strategies.full import Full
from pewb.strategies.head_only import HeadOnly
from pewb.strategies.ia3 import Ia3
from pewb.strategies.layer_norm import LayerNorm
from pewb.strategies.loha import LoHa
from pewb.strategies.lokr import LoKr
from pewb.strategies.lora import Lora
from pewb.strategies.mam import Mam
from pewb.strategies.oft import Oft
from pewb.strategies.p_tuning import PTuning
from pewb.strategies.peft_config import Peft
from pewb.strategies.prefix_tuning import PrefixTuning
from pewb.strategies.prompt_tuning import PromptTuning
from pewb.strategies.strategy import Strategy
from pewb.strategies.top_layers import TopLayers
from pewb.strategies.vera import Vera

_BUILT_IN: dict[str, type[Strategy]] = {
    "full": Full,
    "lora": Lora,
    "adalora": AdaLora,
    "vera": Vera,
    "loha": LoHa,
    "lokr": LoKr,
    "oft": Oft,
    "ia3": Ia3,
    "bottleneck_adapter": BottleneckAdapter,
    "prefix_tuning": PrefixTuning,
    "prompt_tuning": PromptTuning,
    "p_tuning": PTuning,
    "mam": Mam,
    "top_layers": TopLayers,
    "layer_norm": LayerNorm,
    "bitfit": BitFit,
    "head_only": HeadOnly,
    "peft": Peft,
}


def strategies() -> dict[str, type[Strategy]]:
    """Return every strategy by name: the built-in ones and those that installed packages register (`pewb.strategies`)."""
    return _BUILT_IN | {entry.name: entry.load() for entry in entry_points(group="pewb.strategies")}


__all__ = ["Strategy", "strategies"]
