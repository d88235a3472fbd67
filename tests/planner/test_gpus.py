import subprocess
import sys

import pytest

from pewb.errors import InputError
from pewb.planner.gpus import custom_gpu, gpu, gpus
from pewb.units import parse_bytes

MIB = 2**20


@pytest.mark.parametrize("name", gpus())
def test_row_is_consistent(name):
    one = gpus()[name]
    assert one == gpu(name)
    assert one.description
    assert one.source.startswith("https://")
    assert one.has_bf16 == (one.compute_capability >= (8, 0)) == (one.bf16_flops is not None)
    assert one.bf16_flops in (None, one.fp16_flops)
    assert one.fp32_flops < one.fp16_flops
    assert 1e11 < one.bandwidth_bytes_per_second < 1e13
    assert one.context_bytes == 512 * MIB
    assert 0 < one.usable_bytes == one.memory_bytes - one.context_bytes - one.workspace_bytes


@pytest.mark.parametrize("name", gpus())
def test_memory_is_a_little_less_than_what_is_on_the_box(name):
    """The description names it in GB, which are GiB for a GPU with GDDR memory, and thereabouts for one with HBM."""
    one = gpus()[name]
    on_the_box = int(one.description.partition(" GB")[0].rpartition(" ")[2]) * 2**30
    assert 0.88 < one.memory_bytes / on_the_box < 1


def test_t4_is_as_public_logs_have_it():
    t4 = gpu("t4")
    assert t4.memory_bytes == 14912 * MIB
    assert t4.compute_capability == (7, 5)
    assert not t4.has_bf16
    assert t4.fp16_flops == 65e12


def test_workspaces_are_bigger_from_hopper_on():
    assert gpu("a100-80gb").workspace_bytes == 2 * 8_519_680
    assert gpu("h100").workspace_bytes == gpu("b200").workspace_bytes == 64 * MIB


@pytest.mark.parametrize(
    ("written", "name"), [("RTX 4090", "rtx-4090"), ("a6000", "rtx-a6000"), ("H100_80GB", "h100"), (" T4 ", "t4")]
)
def test_name_may_be_written_in_several_ways(written, name):
    assert gpu(written).name == name


def test_unknown_name_names_the_nearest():
    with pytest.raises(InputError, match=r"no GPU 'rtx4090' \(did you mean 'rtx-4090'\?\); known are .*--gpu-memory"):
        gpu("rtx4090")
    with pytest.raises(InputError, match=r"no GPU 'a100'; there are a100-40gb and a100-80gb; known"):
        gpu("a100")


def test_gpu_of_which_only_the_memory_is_known():
    one = custom_gpu(parse_bytes("8GiB"))
    assert one.name == "a GPU with 8.00 GiB"
    assert one.memory_bytes == 8 * 2**30
    assert one.usable_bytes == 8 * 2**30 - 512 * MIB - 2 * 8_519_680
    assert (one.compute_capability, one.has_bf16) == ((8, 0), True)
    assert "8.0" in one.assumption
    assert one.fp32_flops is one.bf16_flops is one.source is None


@pytest.mark.parametrize("size", [0, 512 * MIB, 512 * MIB + 2 * 8_519_680])
def test_gpu_without_room_is_refused(size):
    with pytest.raises(InputError, match=r"none left beside the CUDA context.*such as 8GiB"):
        custom_gpu(size)
    assert custom_gpu(512 * MIB + 2 * 8_519_680 + 1).usable_bytes == 1


def test_names_are_unique():
    from pewb.planner.gpus import _document

    names = [name for title, row in _document().gpus.items() for name in (title, *row.aliases)]
    assert len(names) == len(set(names))


def test_import_is_light():
    code = "import sys, pewb.planner.gpus; print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
