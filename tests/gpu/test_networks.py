"""A training step of every network on a GPU, against the same step on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2018
from gss_train.models import NETWORKS, build_network
from gss_train.training import GROUP_SELF_SUPPORT, Objective

_EDGE = 32
_OPTIONS = [(False, False), (True, False), (True, True)]


def step(network: str, device: str, *, checkpointing: bool, bfloat16: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The fused logits and every gradient; in eval mode, since dropout and posterior noise differ by device."""
    torch.manual_seed(0)
    built = build_network(network, 4, crop_size=(_EDGE,) * 3, width=4, activation_checkpointing=checkpointing).eval()
    image = torch.randn(2, 4, _EDGE, _EDGE, _EDGE)
    labels = torch.randint(4, (2, _EDGE, _EDGE, _EDGE))
    fused = torch.tensor([[True, False, True, True], [True, True, False, False]])
    available = torch.tensor([[True, True, True, True], [True, True, False, True]])
    built, image, labels, fused, available = (value.to(device) for value in (built, image, labels, fused, available))
    with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
        output = built(image, fused, available, per_modality=True)
    Objective(BRATS_2018, GROUP_SELF_SUPPORT)(output, labels, available, seed=0).total.backward()
    gradients = {
        name: parameter.grad.cpu() for name, parameter in built.named_parameters() if parameter.grad is not None
    }
    return output.fused.detach().cpu(), gradients


@pytest.mark.parametrize(("checkpointing", "bfloat16"), _OPTIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_step_is_that_of_the_cpu(network: str, checkpointing: bool, bfloat16: bool) -> None:
    want, want_gradients = step(network, "cpu", checkpointing=False, bfloat16=False)
    logits, gradients = step(network, "cuda", checkpointing=checkpointing, bfloat16=bfloat16)
    tolerance = 0.1 if bfloat16 else 0.01  # of cuDNN's TensorFloat-32 as well
    assert (logits.float() - want).norm() <= tolerance * want.norm()
    assert gradients.keys() == want_gradients.keys()
    whole = torch.cat([gradients[name].flatten().float() for name in want_gradients])
    expected = torch.cat([gradient.flatten() for gradient in want_gradients.values()])
    assert torch.isfinite(whole).all()
    assert torch.nn.functional.cosine_similarity(whole, expected, dim=0) > (0.95 if bfloat16 else 0.99)
