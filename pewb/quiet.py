"""Keeping the libraries' own remarks off the screen and out of the logs; their warnings of failures stay."""

from __future__ import annotations

import logging
import warnings


def quieten_libraries() -> None:
    """Keep the libraries from remarking on every forward, on deprecations, and on optional kernels they do without."""
    import datasets
    import transformers

    quieten_remarks()
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def quieten_remarks() -> None:
    """Keep them from remarks for which no library has to be imported yet, such as those of an import itself."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
