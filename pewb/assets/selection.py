"""Which files of a repository or folder are needed, and which are refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pewb.assets.missing import MissingError

_MODEL_TEXTS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "chat_template*",
)
_TEXT_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe"}
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_TABLE_SUFFIXES = {".parquet", ".csv", ".tsv", ".jsonl", ".json"}
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def is_safe(path: str) -> bool:
    """Whether `path` is a plain relative path that stays inside its folder on every operating system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and not re.search(r"[\\:\0]", path)


def matching(paths: Iterable[str], patterns: Iterable[str], place: str) -> list[str]:
    """Return the `paths` that match one of `patterns`.

    Raises:
        MissingError: a pattern matches nothing.
    """
    paths = list(paths)
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise MissingError(f"{place} has no file '{pattern}'", "look at its files on the hub for the right name")
    return sorted(path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns))


def backbone_files(paths: Iterable[str], place: str, without_weights: bool = False) -> list[str]:
    """Return the files of `place` that a backbone needs: configuration, tokenizer, weights that are safe to load.

    Args:
        paths: what there is.
        place: its name, for messages.
        without_weights: leave them out, where the configuration is not inside them.

    Raises:
        MissingError: there are no such weights, or no configuration.
    """
    top = [path for path in paths if "/" not in path]
    weights = _weights(top, place)
    if "config.json" not in top and not weights[0].endswith(".gguf"):
        if "adapter_config.json" in top:
            raise MissingError(f"{place} holds an adapter, not a backbone", "name the backbone that it was trained for")
        raise MissingError(
            f"{place} has no config.json", "give a folder or repository that save_pretrained has written"
        )
    texts = [
        path
        for path in top
        if PurePosixPath(path).suffix in _TEXT_SUFFIXES and any(fnmatchcase(path, pattern) for pattern in _MODEL_TEXTS)
    ]
    return sorted(texts if without_weights and "config.json" in texts else {*texts, *weights})


def _weights(top: list[str], place: str) -> list[str]:
    if "model.safetensors" in top:
        return ["model.safetensors"]
    if _INDEX in top:
        return [_INDEX, *(path for path in top if _SHARD.fullmatch(path))]
    if safetensors := [path for path in top if path.endswith(".safetensors")]:
        return safetensors
    packed = sorted(path for path in top if path.endswith(".gguf"))
    if len(packed) == 1:
        return packed
    if packed:
        raise MissingError(
            f"{place} has {len(packed)} GGUF files ({', '.join(packed[:4])} …)",
            f"name one, as in 'org/name/{packed[0]}', or keep one in a folder",
        )
    if pickles := [path for path in top if PurePosixPath(path).suffix in _PICKLE_SUFFIXES]:
        raise MissingError(
            f"{place} has its weights only as a pickle ({pickles[0]}), which can run code when it is loaded",
            "take a revision with safetensors (such as 'org/name@refs/pr/1', see the repository's pull requests), or convert it with save_pretrained",
        )
    raise MissingError(f"{place} has no weights (*.safetensors or one *.gguf)", "check that it holds a model")


def task_files(paths: Iterable[str], place: str) -> list[str]:
    """Return the tables of `place`.

    Raises:
        MissingError: there are none.
    """
    tables = [path for path in paths if _is_table(PurePosixPath(path))]
    if not tables:
        raise MissingError(
            f"{place} has no tables (*.parquet, *.csv, *.tsv, *.jsonl, *.json)",
            "for a data set on the hub that is made by a script, add '@refs/convert/parquet' to its name",
        )
    return sorted(tables)


def _is_table(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") and part != ".." for part in path.parts)
    about = path.name.startswith(("dataset_info", "dataset_dict", "state.json"))
    return path.suffix.lower() in _TABLE_SUFFIXES and not hidden and not about


def needed_files(kind: str, paths: Iterable[str], place: str) -> list[str]:
    """Return the files of `place` that an asset of `kind` needs."""
    return backbone_files(paths, place) if kind == "backbone" else task_files(paths, place)
