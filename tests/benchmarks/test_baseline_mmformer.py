"""The plain mmFormer has the published weights and outputs, and the lean one computes what it computes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.baselines.mmformer import PlainMMFormer, PreNormUnit, copy_weights
from benchmarks.memory import peak_extra_bytes
from gss_train.models.layers import normalisation
from gss_train.models.mmformer import MMFormer
from gss_train.models.mmformer.public_keys import mmformer_public_keys
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
SHAPES = json.loads((DATA / "mmformer_c4_keys.json").read_text(encoding="utf-8"))
SMALL = (32, 32, 32)
EVERY_SECOND = (..., slice(None, None, 2), slice(None, None, 2), slice(None, None, 2))


def pair(
    num_categories: int,
    dtype: torch.dtype,
    *,
    seed: int,
    shape: tuple[int, int, int] = SMALL,
    width: int = 2,
) -> tuple[PlainMMFormer, MMFormer]:
    """Both networks without dropout, with the same weights; the embeddings of the places are no longer zero."""
    torch.manual_seed(seed)
    plain = PlainMMFormer(num_categories, crop_size=shape, width=width, dropout=0.0).to(dtype)
    for name, parameter in plain.named_parameters():
        if name.endswith("_pos"):
            nn.init.normal_(parameter)
    lean = MMFormer(num_categories, crop_size=shape, width=width, dropout=0.0).to(dtype)
    copy_weights(lean, plain)
    return plain, lean


def public_weights() -> dict[str, Tensor]:
    """The state dict with which the golden outputs were made."""
    weights = {}
    for index, key in enumerate(sorted(SHAPES)):
        noise = torch.randn(SHAPES[key], generator=torch.Generator().manual_seed(1000 + index))
        if noise.dim() > 1:
            weights[key] = noise * math.sqrt(2 / noise[0].numel())
        else:
            weights[key] = float(key.endswith("norm.weight")) + 0.05 * noise
    return weights


@pytest.mark.parametrize("crop", [32, 48, 128])
def test_has_the_published_keys_and_number_of_parameters(crop: int) -> None:
    with torch.device("meta"):
        plain = PlainMMFormer(4, crop_size=(crop, crop, crop))
    shapes = {key: list(value.shape) for key, value in plain.state_dict().items()}
    places = {f"{modality}_pos": [1, (crop // 16) ** 3, 512] for modality in ("flair", "t1ce", "t1", "t2")}
    assert shapes == SHAPES | places
    published = {32: 35_622_224, 48: 35_661_136, 128: 36_654_416}[crop]
    assert sum(parameter.numel() for parameter in plain.parameters()) == published


def test_gives_the_published_outputs() -> None:
    with np.load(DATA / "mmformer_c4.npz", allow_pickle=False) as archive:
        golden = {name: torch.from_numpy(archive[name]) for name in archive.files}
    shape = (int(golden["size"]),) * 3
    with torch.device("meta"):
        plain = PlainMMFormer(4, crop_size=shape).eval()
    plain.load_state_dict(public_weights(), assign=True)
    lean = MMFormer(4, crop_size=shape).eval()
    copy_weights(lean, plain)
    x = scans(int(golden["seed"]), shape, torch.float32)
    for network in (plain, lean):
        with torch.no_grad():
            output = network(x, golden["mask"], per_modality=True)
        assert output.separate is not None
        assert output.auxiliary is not None
        separate = torch.stack(output.separate, 1).softmax(2)
        assert_near(output.fused.softmax(1), golden["fuse"].float(), 2e-3, "fused")
        assert_near(separate[EVERY_SECOND], golden["sep_pred"].float(), 2e-3, "separate")
        assert_near(output.auxiliary[0][EVERY_SECOND], golden["aux1"].float(), 2e-3, "level 1")
        assert_near(output.auxiliary[3][EVERY_SECOND], golden["aux4"].float(), 2e-3, "level 4")


@pytest.mark.parametrize(
    ("num_categories", "fused", "available"),
    [(4, "1111 0100", "1111 1111"), (5, "0011 1000", "1011 1001"), (4, "0001 0110", "0001 1110")],
)
def test_lean_network_equals_it_in_float64(num_categories: int, fused: str, available: str) -> None:
    plain, lean = pair(num_categories, torch.float64, seed=1, width=1)
    x = scans(1, SMALL, torch.float64)
    expected = run(plain, x, *masks(fused, available))
    assert_same_outputs(run(lean, x, *masks(fused, available)), expected, tolerance=1e-11)
    assert_same_gradients(lean, plain, mmformer_public_keys(lean), tolerance=1e-9)


def test_lean_network_equals_it_on_a_single_sample_with_unequal_axes() -> None:
    shape = (32, 48, 32)
    plain, lean = pair(5, torch.float64, seed=0, shape=shape, width=1)
    x = scans(1, shape, torch.float64)[:1]
    fused_modalities, available = masks("1001", "1011")
    expected = run(plain, x, fused_modalities, available)
    for lean.activation_checkpointing in (False, True):
        lean.zero_grad()
        assert_same_outputs(run(lean, x, fused_modalities, available), expected, tolerance=1e-11)
        assert_same_gradients(lean, plain, mmformer_public_keys(lean), tolerance=1e-9)


@pytest.mark.parametrize("num_categories", [4, 5])
def test_lean_outputs_equal_it_in_float32(num_categories: int) -> None:
    plain, lean = pair(num_categories, torch.float32, seed=num_categories)
    fused_modalities, available = masks("1011 0110", "1011 1111")
    x = scans(num_categories, SMALL, torch.float32)
    with torch.no_grad():
        expected = meaningful(plain(x, fused_modalities, available), available)
        actual = meaningful(lean(x, fused_modalities, available), available)
    assert_same_outputs(actual, expected, tolerance=5e-5)


def test_lean_gradients_equal_it_in_float32_but_for_the_rectifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding moves voxels to the other side of a rectifier's kink, where the gradient jumps; slope 1 has no kink."""
    plain, lean = pair(5, torch.float32, seed=2)
    monkeypatch.setattr(normalisation, "NEGATIVE_SLOPE", 1.0)
    for module in plain.modules():
        if isinstance(module, PreNormUnit):
            module.activation.negative_slope = 1.0
    x = scans(3, SMALL, torch.float32)
    for network in (plain, lean):
        run(network, x, *masks("1101 0111", "1111 1111"))
    assert_same_gradients(lean, plain, mmformer_public_keys(lean), tolerance=2e-5)


def test_lean_network_takes_a_fraction_of_its_memory() -> None:
    shape = (48, 32, 32)
    x, fused_modalities = scans(0, shape, torch.float32)[:1], torch.ones(1, 4, dtype=torch.bool)

    def peak(network: PlainMMFormer | MMFormer) -> int:
        def step() -> None:
            outputs = meaningful(network(x, fused_modalities), fused_modalities)
            torch.autograd.backward([tensor.mean() for tensor in outputs.values()])

        return peak_extra_bytes(step, torch.device("cpu"))

    plain, lean = pair(4, torch.float32, seed=0, shape=shape, width=3)
    plain_peak = peak(plain)
    assert peak(lean) < 0.5 * plain_peak
    lean.activation_checkpointing = True
    lean.zero_grad()
    assert peak(lean) < 0.35 * plain_peak


def test_follows_the_training_mode_unless_asked() -> None:
    plain = PlainMMFormer(4, crop_size=SMALL, width=1)
    x, (fused_modalities, _) = scans(0, SMALL, torch.float32), masks("1011 0110", "1111 1111")
    assert plain(x, fused_modalities, per_modality=False).separate is None
    assert plain.eval()(x, fused_modalities).auxiliary is None
    assert plain(x, fused_modalities, per_modality=True).separate is not None
