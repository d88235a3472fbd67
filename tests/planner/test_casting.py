"""The casting tables against PyTorch: which operators it registers for autocast, and what it does to real tensors."""

import pytest
import torch
from torch.nn import functional

from pewb.planner.casting import rules
from pewb.planner.virtual_device import VirtualDevice

NOT_IN_TRANSFORMERS = {
    "cpu": "_addmm_activation _convolution _grid_sampler_2d_cpu_fallback _lu_with_info _native_multi_head_attention"
    " adaptive_max_pool3d fake_quantize_per_tensor_affine fractional_max_pool2d fractional_max_pool3d grid_sampler"
    " grid_sampler_2d grid_sampler_3d max_pool3d max_unpool2d max_unpool3d mkldnn_rnn_layer view_as_complex"
    " reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d replication_pad3d triangular_solve prelu",
    "cuda": "_convolution _scaled_dot_product_flash_attention convolution cudnn_convolution cudnn_convolution_transpose"
    " grid_sampler _thnn_fused_gru_cell _thnn_fused_lstm_cell gru_cell lstm_cell rnn_relu_cell rnn_tanh_cell",
}
"""Treated by autocast, but below the functions that are called, or not to be met in a transformer."""
FAMILIES = ("linalg_", "fft_", "upsample_", "_upsample_", "cholesky", "lu_", "or", "qr", "svd", "geqrf")
OTHER_NAMES = {"cross_entropy_loss": "cross_entropy", "frobenius_norm": "norm", "nll_loss2d": "nll_loss"}
OTHER_NAMES |= {"native_layer_norm": "layer_norm", "multilabel_margin_loss_forward": "multilabel_margin_loss"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_operator_that_autocast_treats_is_in_the_table(device):
    registered = torch._C._dispatch_get_registrations_for_dispatch_key(f"Autocast{device.upper()}")
    names = {name.removeprefix("aten::").partition(".")[0] for name in registered}
    names = {OTHER_NAMES.get(name, name) for name in names}
    known = {getattr(function, "__name__", "") for function in rules(device)}
    missing = {name for name in names - known if not name.startswith(FAMILIES)}
    assert missing - set(NOT_IN_TRANSFORMERS[device].split()) == set()


def wide(*shape):
    return torch.ones(shape, dtype=torch.float32)


def low(*shape):
    return torch.ones(shape, dtype=torch.bfloat16)


CALLS = {
    "linear": lambda: functional.linear(wide(2, 4), wide(3, 4)),
    "matmul": lambda: wide(2, 3, 4) @ wide(2, 4, 3),
    "bmm": lambda: torch.bmm(wide(2, 3, 4), low(2, 4, 3).float()),
    "einsum": lambda: torch.einsum("bij,bjk->bik", wide(2, 3, 4), wide(2, 4, 3)),
    "addmm": lambda: torch.addmm(wide(3), wide(2, 4), wide(4, 3)),
    "softmax": lambda: functional.softmax(low(2, 4), -1),
    "softmax in float32": lambda: functional.softmax(low(2, 4), -1, dtype=torch.float32),
    "layer_norm": lambda: functional.layer_norm(low(2, 4), (4,), low(4), low(4)),
    "layer_norm of wide": lambda: functional.layer_norm(wide(2, 4), (4,), wide(4), wide(4)),
    "gelu": lambda: functional.gelu(low(2, 4)),
    "cat": lambda: torch.cat([low(2, 4), wide(2, 4)]),
    "stack": lambda: torch.stack([low(2, 4), wide(2, 4)]),
    "pow": lambda: low(2, 4).pow(2),
    "power": lambda: low(2, 4) ** 2,
    "rsqrt": lambda: torch.rsqrt(low(2, 4)),
    "sum": lambda: low(2, 4).sum(),
    "mean": lambda: low(2, 4).mean(-1),
    "cross_entropy": lambda: functional.cross_entropy(low(2, 4), torch.zeros(2, dtype=torch.long)),
    "mse_loss": lambda: functional.mse_loss(low(2, 4), low(2, 4)),
    "attention": lambda: functional.scaled_dot_product_attention(wide(1, 2, 3, 8), wide(1, 2, 3, 8), wide(1, 2, 3, 8)),
    "conv1d": lambda: functional.conv1d(wide(1, 2, 8), wide(3, 2, 3)),
    "embedding": lambda: functional.embedding(torch.zeros(2, dtype=torch.long), low(5, 4)),
}


@pytest.mark.parametrize("name", CALLS)
def test_virtual_tensors_are_cast_as_a_cpu_casts_real_ones(name):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        real = CALLS[name]()
    device = VirtualDevice("cpu")
    with device.active(), device.autocast(torch.bfloat16):
        virtual = CALLS[name]()
    assert (virtual.dtype, virtual.shape, virtual.is_meta) == (real.dtype, real.shape, True)


@pytest.mark.parametrize(
    ("name", "dtype"),
    {
        "softmax": torch.float32,
        "layer_norm": torch.float32,
        "pow": torch.float32,
        "power": torch.float32,
        "rsqrt": torch.float32,
        "sum": torch.float32,
        "gelu": torch.bfloat16,
        "matmul": torch.bfloat16,
        "mean": torch.bfloat16,
    }.items(),
)
def test_a_virtual_gpu_casts_by_cudas_list(name, dtype):
    """As PyTorch's documentation of autocast lists CUDA's operators."""
    device = VirtualDevice("cuda")
    with device.active(), device.autocast(torch.bfloat16):
        assert CALLS[name]().dtype == dtype


def test_a_weight_is_cast_once_in_a_context():
    device = VirtualDevice("cuda")
    with device.active():
        weight = torch.nn.Parameter(torch.ones(3, 4))
        with device.autocast(torch.bfloat16):
            functional.linear(wide(2, 4), weight)
            first = device._casts[id(weight)][1]
            functional.linear(wide(2, 4), weight)
            assert device._casts[id(weight)][1] is first
        assert not device._casts


def test_nothing_of_the_device_stays_behind():
    before = torch.is_autocast_enabled, torch.autocast.__init__, torch.clear_autocast_cache
    with VirtualDevice("cuda").active():
        pass
    assert before == (torch.is_autocast_enabled, torch.autocast.__init__, torch.clear_autocast_cache)
    assert torch.ones(1).device.type == "cpu"
