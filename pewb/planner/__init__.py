"""Planning: what a recipe would need on a device, simulated on virtual tensors before anything is trained."""
