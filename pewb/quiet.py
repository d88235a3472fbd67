"""Keeping the libraries' own remarks off the screen and out of the logs; their warnings of failures stay."""

from __future__ import annotations

import logging
import warnings


def quieten_libraries() -> None:
    """Keep the libraries from remarking on every forward, on deprecations, and on optional kernels they do without."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
