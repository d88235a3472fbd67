"""From tokenised examples to batches: grouped by length, padded or packed, on the device."""

from pewb.batching.collated import STATES, Batches, Collated, Inputs
from pewb.batching.encoded import IGNORED, Encoded, Tokenised, kept
from pewb.batching.order import longest_first, packed_rows, shuffled_batches
from pewb.batching.ragged import Ragged

__all__ = [
    "IGNORED",
    "STATES",
    "Batches",
    "Collated",
    "Encoded",
    "Inputs",
    "Ragged",
    "Tokenised",
    "kept",
    "longest_first",
    "packed_rows",
    "shuffled_batches",
]
