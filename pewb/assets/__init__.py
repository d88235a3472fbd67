"""Assets: from a name to verified local files, with where they came from and their digests."""

from pewb.assets.architecture import architecture
from pewb.assets.cache import cache_folder, digest_file
from pewb.assets.catalog import BackboneEntry, TaskEntry, backbones, tasks
from pewb.assets.resolve import Asset, cached, fetch, fetch_first

__all__ = [
    "Asset",
    "BackboneEntry",
    "TaskEntry",
    "architecture",
    "backbones",
    "cache_folder",
    "cached",
    "digest_file",
    "fetch",
    "fetch_first",
    "tasks",
]
