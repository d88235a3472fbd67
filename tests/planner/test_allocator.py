"""The caching allocator's replica: known cases of its rules, and what must hold of any trace."""

from hypothesis import given
from hypothesis import strategies as st

from pewb.planner.allocator import _SMALL, CachingAllocator, peak_reserved
from pewb.planner.trace import Change

MIB = 2**20


def held(changes):
    return peak_reserved(Change(name, size, "activations", "", "", None, 0) for name, size in changes)


def test_small_and_large_requests_come_from_pools_that_grow_by_pages():
    assert held([(1, 100)]) == 2 * MIB
    assert held([(1, MIB), (2, MIB)]) == 2 * MIB
    assert held([(1, MIB + 1)]) == 20 * MIB
    assert held([(1, 50 * MIB)]) == 60 * MIB
    assert held([(1, 100), (2, 2 * MIB)]) == 22 * MIB


def test_what_is_given_back_is_used_again_but_still_held():
    assert held([(1, 40 * MIB), (1, 0), (2, 40 * MIB)]) == 40 * MIB
    assert held([(1, 40 * MIB), (1, 0)]) == 40 * MIB


def test_neighbours_are_joined():
    trace = [(1, 20 * MIB), (2, 20 * MIB), (3, 20 * MIB), (1, 0), (2, 0), (4, 40 * MIB)]
    assert held(trace) == 60 * MIB


def test_a_hole_that_is_too_small_makes_the_segment_grow():
    trace = [(1, 20 * MIB), (2, 20 * MIB), (1, 0), (3, 40 * MIB)]
    assert held(trace) == 80 * MIB


def test_the_smallest_hole_that_serves_is_taken_before_the_end_of_the_segment():
    trace = [(1, 40 * MIB), (2, 2 * MIB), (3, 20 * MIB), (4, 2 * MIB), (1, 0), (3, 0), (5, 20 * MIB), (6, 40 * MIB)]
    assert held(trace) == 80 * MIB


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 60 * MIB)), max_size=60))
def test_blocks_never_overlap_and_what_is_held_covers_what_is_live(changes):
    allocator = CachingAllocator()
    live = {}
    for name, size in changes:
        allocator.change(name, size)
        live[name] = size
        assert allocator.reserved_bytes >= sum(live.values())
        for is_small, pool in allocator._pools.items():
            end = 0
            for address in sorted(pool.blocks):
                assert address == end
                end = address + pool.blocks[address].size
            assert end == pool.held
            taken = sorted(address for size, address in allocator._given.values() if (size <= _SMALL) == is_small)
            assert [address for address in sorted(pool.blocks) if not pool.blocks[address].is_free] == taken
            listed = sorted(address for _, address in pool.free)
            assert listed == [address for address in sorted(pool.blocks) if pool.blocks[address].is_free]
