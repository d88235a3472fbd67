"""Assets: from a name to verified local files, with where they came from and their digests."""

from pewb.assets.architecture import architecture
from pewb.assets.cache import cache_folder, digest_file
from pewb.assets.catalog import BackboneEntry, TaskEntry, backbones, tasks
from pewb.assets.missing import MissingError
from pewb.assets.reachable import hub_fault, package_index_fault
from pewb.assets.resolve import Asset, cached, fetch, fetch_first

__all__ = [
    "Asset",
    "BackboneEntry",
    "MissingError",
    "TaskEntry",
    "architecture",
    "backbones",
    "cache_folder",
    "cached",
    "digest_file",
    "fetch",
    "fetch_first",
    "hub_fault",
    "package_index_fault",
    "tasks",
]
