"""What CUDA's caching allocator would hold for a trace of allocations.

It follows `c10/cuda/CUDACachingAllocator.cpp` of PyTorch 2.13 with expandable segments, in which a run computes, on one
stream. There are blocks of 512 bytes, and two pools: what is up to 1 MiB in one, which grows by pages of 2 MiB, the rest
in the other, which grows by pages of 20 MiB. A request takes the smallest free block that serves and splits it; the last
block of a pool counts as endless, so it is taken, and grown, only where no other serves.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from pewb.planner.trace import Change

BLOCK = 512
_MIB = 2**20
_SMALL = _MIB
_SMALL_PAGE = 2 * _MIB
_LARGE_PAGE = 20 * _MIB


@dataclass
class _Block:
    size: int
    before: int | None = None
    """Address of the block before it."""
    after: int | None = None
    is_free: bool = True


@dataclass
class _Pool:
    """One expandable segment."""

    page: int
    held: int = 0
    free: list[tuple[int, int]] = field(default_factory=list)
    """Size and address of each free block, in order."""
    blocks: dict[int, _Block] = field(default_factory=dict)
    last: int | None = None

    def take(self, size: int) -> int:
        """Return the address of a block of `size` bytes."""
        address = self._best(size)
        if address is None:
            address = self._grown(size)
        block = self.blocks[address]
        if block.size > size:
            self._split(address, block, size)
        block.is_free = False
        return address

    def give_back(self, address: int) -> None:
        """Free the block at `address`, and join it with its free neighbours."""
        block = self.blocks[address]
        block.is_free = True
        if block.after is not None and self.blocks[block.after].is_free:
            self._unlist(block.after)
            self._join(address, block)
        if block.before is not None and self.blocks[block.before].is_free:
            address, block = block.before, self.blocks[block.before]
            self._unlist(address)
            self._join(address, block)
        insort(self.free, (block.size, address))

    def _best(self, size: int) -> int | None:
        place = bisect_left(self.free, (size, -1))
        if place + 1 < len(self.free) and self.free[place][1] == self.last:
            place += 1
        return self.free.pop(place)[1] if place < len(self.free) else None

    def _grown(self, size: int) -> int:
        """Return the address of a free block at the end that is large enough now, and is not listed."""
        last = self.blocks[self.last] if self.last is not None else None
        if last is not None and last.is_free:
            assert self.last is not None
            self._unlist(self.last)
            address, missing = self.last, size - last.size
        else:
            address, missing = self.held, size
            self.blocks[address] = _Block(0, self.last)
            if last is not None:
                last.after = address
            self.last = address
        grown = -(-missing // self.page) * self.page
        self.blocks[address].size += grown
        self.held += grown
        return address

    def _split(self, address: int, block: _Block, size: int) -> None:
        beyond = address + size
        self.blocks[beyond] = _Block(block.size - size, address, block.after)
        if block.after is None:
            self.last = beyond
        else:
            self.blocks[block.after].before = beyond
        insort(self.free, (block.size - size, beyond))
        block.after = beyond
        block.size = size

    def _join(self, address: int, block: _Block) -> None:
        """Add the block after `block` to it."""
        assert block.after is not None
        following = self.blocks.pop(block.after)
        block.size += following.size
        block.after = following.after
        if block.after is None:
            self.last = address
        else:
            self.blocks[block.after].before = address

    def _unlist(self, address: int) -> None:
        self.free.pop(bisect_left(self.free, (self.blocks[address].size, address)))


class CachingAllocator:
    """Gives out blocks of virtual memory, of which there is enough."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._pools = {True: _Pool(_SMALL_PAGE), False: _Pool(_LARGE_PAGE)}
        self._given: dict[int, tuple[int, int]] = {}
        """Size and address."""

    @property
    def reserved_bytes(self) -> int:
        """What is held, in use or not; it never shrinks by itself."""
        return sum(pool.held for pool in self._pools.values())

    def change(self, name: int, size: int) -> None:
        """Let `name` take `size` bytes; 0 to give them back."""
        size = -(-size // BLOCK) * BLOCK
        if name in self._given:
            held, address = self._given[name]
            if held == size:
                return
            del self._given[name]
            self._pools[held <= _SMALL].give_back(address)
        if size:
            self._given[name] = size, self._pools[size <= _SMALL].take(size)


def peak_reserved(trace: Iterable[Change]) -> int:
    """Return the most that the allocator holds over `trace`."""
    allocator = CachingAllocator()
    for change in trace:
        allocator.change(change.storage, change.size)
    return allocator.reserved_bytes
