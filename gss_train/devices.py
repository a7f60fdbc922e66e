"""What a command computes on."""

from __future__ import annotations

import torch

from gss_train.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of the flag `--device`.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one.

    Raises:
        UserError: there is no such device, or it cannot be used here.
    """
    chosen = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(chosen)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--device: got {name!r}, which cannot be used here: {reason}") from error
    return device
