"""The plain RFNet has the published weights and outputs, and the lean one computes what it computes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.baselines.rfnet import PlainRFNet, Unit
from gss_train.models import load_public_checkpoint
from gss_train.models.layers import normalisation
from gss_train.models.public_checkpoints import rfnet_public_keys
from gss_train.models.rfnet import RFNet
from tests.benchmarks.lean_and_plain_with_auxiliary import (
    assert_near,
    assert_same_gradients,
    assert_same_outputs,
    masks,
    meaningful,
    run,
    scans,
)

DATA = Path(__file__).parents[1] / "data"
SHAPES = json.loads((DATA / "rfnet_c4_keys.json").read_text(encoding="utf-8"))


def pair(num_categories: int, dtype: torch.dtype, *, seed: int, width: int = 8) -> tuple[PlainRFNet, RFNet]:
    torch.manual_seed(seed)
    plain = PlainRFNet(num_categories, width=width)
    lean = RFNet(num_categories, width=width)
    report = load_public_checkpoint(lean, plain.state_dict())
    assert report.unused == report.missing == ()
    return plain.to(dtype), lean.to(dtype)


def public_weights() -> dict[str, Tensor]:
    """The state dict with which the golden outputs were made."""
    weights = {}
    for index, key in enumerate(sorted(SHAPES)):
        noise = torch.randn(SHAPES[key], generator=torch.Generator().manual_seed(1000 + index))
        weights[key] = noise * math.sqrt(2 / noise[0].numel()) if noise.dim() > 1 else 0.05 * noise
    return weights


def test_state_dict_has_the_published_keys_and_shapes() -> None:
    assert {key: list(value.shape) for key, value in PlainRFNet(4).state_dict().items()} == SHAPES


def test_gives_the_published_outputs() -> None:
    plain = PlainRFNet(4).eval()
    plain.load_state_dict(public_weights())
    with np.load(DATA / "rfnet_c4.npz", allow_pickle=False) as archive:
        golden = {name: torch.from_numpy(archive[name]) for name in archive.files}
    size = int(golden["size"])
    x = scans(int(golden["seed"]), (size, size, size), torch.float32)
    with torch.no_grad():
        output = plain(x, golden["mask"], per_modality=True)
    assert output.separate is not None
    assert output.auxiliary is not None
    assert_near(output.fused.softmax(1), golden["fuse"], 2e-4, "fused")
    assert_near(torch.stack(output.separate, 1), golden["sep_logits"], 2e-4, "separate")
    assert_near(output.auxiliary[0], golden["prm1"], 2e-4, "level 1")
    assert_near(output.auxiliary[3], golden["prm4"], 2e-4, "level 4")


@pytest.mark.parametrize(
    ("num_categories", "fused", "available"),
    [(4, "1111 0100", "1111 1111"), (5, "0011 1000", "1011 1001"), (4, "0001 0110", "0001 1110")],
)
def test_lean_network_equals_it_in_float64(num_categories: int, fused: str, available: str) -> None:
    plain, lean = pair(num_categories, torch.float64, seed=4, width=4)
    x = scans(4, (16, 16, 16), torch.float64)
    expected = run(plain, x, *masks(fused, available))
    assert_same_outputs(run(lean, x, *masks(fused, available)), expected, tolerance=1e-11)
    assert_same_gradients(lean, plain, rfnet_public_keys(lean), tolerance=1e-9)


def test_lean_network_equals_it_on_a_single_sample_with_unequal_axes() -> None:
    plain, lean = pair(5, torch.float64, seed=0, width=4)
    x = scans(1, (16, 24, 32), torch.float64)[:1]
    fused_modalities, available = masks("1001", "1011")
    expected = run(plain, x, fused_modalities, available)
    for lean.activation_checkpointing in (False, True):
        lean.zero_grad()
        assert_same_outputs(run(lean, x, fused_modalities, available), expected, tolerance=1e-11)
        assert_same_gradients(lean, plain, rfnet_public_keys(lean), tolerance=1e-9)


@pytest.mark.parametrize(("num_categories", "shape"), [(4, (16, 16, 16)), (5, (24, 16, 16))])
def test_lean_outputs_equal_it_in_float32(num_categories: int, shape: tuple[int, int, int]) -> None:
    plain, lean = pair(num_categories, torch.float32, seed=num_categories)
    fused_modalities, available = masks("1011 0110", "1011 1111")
    x = scans(num_categories, shape, torch.float32)
    with torch.no_grad():
        expected = meaningful(plain(x, fused_modalities, available), available)
        actual = meaningful(lean(x, fused_modalities, available), available)
    assert_same_outputs(actual, expected, tolerance=5e-5)


def test_lean_gradients_equal_it_in_float32_but_for_the_rectifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding moves voxels to the other side of a rectifier's kink, where the gradient jumps; slope 1 has no kink."""
    plain, lean = pair(5, torch.float32, seed=2)
    monkeypatch.setattr(normalisation, "NEGATIVE_SLOPE", 1.0)
    for module in plain.modules():
        if isinstance(module, Unit):
            module.activation.negative_slope = 1.0
    x = scans(3, (16, 24, 16), torch.float32)
    for network in (plain, lean):
        run(network, x, *masks("1101 0111", "1111 1111"))
    assert_same_gradients(lean, plain, rfnet_public_keys(lean), tolerance=2e-5)


def test_follows_the_training_mode_unless_asked() -> None:
    plain = PlainRFNet(4, width=4)
    x, (fused_modalities, _) = scans(0, (16, 16, 16), torch.float32), masks("1011 0110", "1111 1111")
    assert plain(x, fused_modalities, per_modality=False).separate is None
    assert plain.eval()(x, fused_modalities).auxiliary is None
    assert plain(x, fused_modalities, per_modality=True).separate is not None
