"""The CPU backend: chunks of voxels that stay in cache, with hand-written backward passes."""

from gss_kernels.cpu.gss import cpu_loss, cpu_soft_targets

__all__ = ["cpu_loss", "cpu_soft_targets"]
