"""Training in fp16 with a scaled loss, which pewb chooses on a GPU without bf16, here on the CPU."""

import torch
from accelerate import Accelerator


def in_fp16(monkeypatch, **settings):
    """Return an accelerator whose scaler has these `settings`."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", **settings)
    accelerator.native_amp = True
    monkeypatch.setattr(accelerator.state, "_mixed_precision", "fp16")
    return accelerator
