"""From tokenised examples to batches: grouped by length, padded or packed, on the device."""

from pewb.batching.collated import STATES, Batches, Collated, Inputs
from pewb.batching.encoded import IGNORED, Encoded, Tokenised, kept
from pewb.batching.order import FOLLOWED_STEPS, by_length, first_epoch, longest_first, packed_rows, shuffled_batches
from pewb.batching.ragged import Ragged

__all__ = [
    "FOLLOWED_STEPS",
    "IGNORED",
    "STATES",
    "Batches",
    "Collated",
    "Encoded",
    "Inputs",
    "Ragged",
    "Tokenised",
    "by_length",
    "first_epoch",
    "kept",
    "longest_first",
    "packed_rows",
    "shuffled_batches",
]
