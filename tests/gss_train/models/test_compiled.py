"""`torch.compile` takes every network in one piece, and changes no prediction and no gradient."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from gss_train.models.registry import NETWORKS
from gss_train.models.robustseg.image_decoder import HEAD_TAPS, ImageDecoder, StyleEncoder, StyleMapping

SUBSETS = torch.tensor([[True, False, True, True], [False, True, False, False]])
AVAILABLE = torch.tensor([[True, True, True, True], [True, True, False, True]])
EDGE = 8

# Of `_interpolation_matrix`, which gives equal matrices for equal arguments; then of PyTorch's own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _no_garbage_collection() -> Iterator[None]:
    """Tracing makes so many objects that the search for garbage takes a fifth of its time."""
    gc.disable()
    yield
    gc.enable()


def assert_compiled_gives_the_same(function: Callable[..., Tensor], network: nn.Module, *inputs: Tensor) -> None:
    torch.compiler.reset()
    results = []
    for call in (function, torch.compile(function, backend="aot_eager", fullgraph=True)):
        network.zero_grad()
        result = call(*inputs)
        result.square().mean().backward()
        results.append([result, *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-8 * float(eager.detach().abs().max()) + 1e-12, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_network_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # With its finest and its coarsest level: those between have no code of their own, and tracing them takes seconds.
    module = importlib.import_module(f"gss_train.models.{name}.network")
    for constant, value in (("NUM_LEVELS", 2), ("COARSEST_STRIDE", 2), ("LEAST_AXIS", 4)):
        monkeypatch.setattr(module, constant, value)
    torch.manual_seed(0)
    options = {"crop_size": EDGE, "width": 1} if NETWORKS[name].sized else {"width": 4}
    network = NETWORKS[name].build(2, activation_checkpointing=name == "uhved", **options).double().eval()

    def predict(x: Tensor) -> Tensor:
        return network(x, SUBSETS, AVAILABLE, per_modality=False).fused

    x = torch.randn(2, 4, *(EDGE,) * 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_compiled_gives_the_same(predict, network, x)


def test_compiled_image_decoder_of_robustseg_gives_the_same() -> None:
    torch.manual_seed(0)
    width = 2
    style_encoder, mapping, decoder = StyleEncoder(width), StyleMapping(8 * width), ImageDecoder(width)
    # The others have no code of their own.
    decoder.blocks, decoder.levels, decoder.norms = decoder.blocks[:1], decoder.levels[:1], decoder.norms[:1]
    head = nn.Conv3d(4 * width, 1, HEAD_TAPS)
    network = nn.ModuleList((style_encoder, mapping, decoder, head)).double()

    def reconstruct(scan: Tensor, content: Tensor) -> Tensor:
        return decoder(content, *mapping(style_encoder(scan)), head.weight, head.bias)

    scan = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    content = torch.randn(1, 8 * width, EDGE, EDGE, EDGE, dtype=torch.float64)
    assert_compiled_gives_the_same(reconstruct, network, scan, content)


def test_the_compiler_is_not_loaded_before_it_is_needed() -> None:
    """It takes about as long to load as PyTorch without it."""
    code = "import sys, gss_train.models.registry; sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
