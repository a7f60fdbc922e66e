"""Public weights give the public code's predictions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gss_train.models import build_network, load_public_checkpoint
from tests.gss_train.models.public_weights import DATA, rfnet_weights


def network(num_categories: int = 4) -> nn.Module:
    return build_network("rfnet", num_categories, crop_size=(16, 16, 16)).eval()


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return rfnet_weights()


def test_golden_outputs(weights: dict[str, Tensor]) -> None:
    rfnet = network()
    report = load_public_checkpoint(rfnet, weights)
    assert report.used == tuple(sorted(weights))
    assert report.unused == report.missing == ()
    with np.load(DATA / "rfnet_c4.npz", allow_pickle=False) as archive:
        golden = {name: torch.from_numpy(archive[name]) for name in archive.files}
    size = int(golden["size"])
    generator = torch.Generator().manual_seed(int(golden["seed"]))
    x = torch.randn(2, 4, size, size, size, generator=generator)
    with torch.no_grad():
        output = rfnet(x, golden["mask"], per_modality=True)
    close = {"atol": 2e-4, "rtol": 0}
    torch.testing.assert_close(output.fused.softmax(1), golden["fuse"], **close)
    torch.testing.assert_close(torch.stack(output.separate, 1), golden["sep_logits"], **close)
    torch.testing.assert_close(output.auxiliary[0], golden["prm1"], **close)
    torch.testing.assert_close(output.auxiliary[3], golden["prm4"], **close)


def test_authors_file_layout_and_parallel_prefix(weights: dict[str, Tensor]) -> None:
    bare, wrapped = network(), network()
    load_public_checkpoint(bare, weights)
    checkpoint = {
        "epoch": 3,
        "state_dict": {f"module.{key}": value for key, value in weights.items()},
        "optim_dict": {},
    }
    report = load_public_checkpoint(wrapped, checkpoint)
    assert report.used == tuple(sorted(weights))
    for expected, actual in zip(bare.parameters(), wrapped.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_every_parameter_is_loaded(weights: dict[str, Tensor]) -> None:
    rfnet = network()
    with torch.no_grad():
        for parameter in rfnet.parameters():
            parameter.fill_(torch.nan)
    load_public_checkpoint(rfnet, weights)
    assert all(parameter.isfinite().all() for parameter in rfnet.parameters())


def test_unused_and_missing_keys_are_reported(weights: dict[str, Tensor]) -> None:
    rfnet = network()
    missing = "t1_encoder.e2_c1.conv.weight"
    before = rfnet.encoder[1].enter.convolution.weight.detach().clone()
    state = {key: value for key, value in weights.items() if key != missing} | {"head.weight": torch.zeros(1)}
    report = load_public_checkpoint(rfnet, state)
    assert report.missing == (missing,)
    assert report.unused == ("head.weight",)
    after = rfnet.encoder[1].enter.convolution.weight.chunk(4)
    torch.testing.assert_close(after[2], before.chunk(4)[2], atol=0, rtol=0)
    torch.testing.assert_close(after[1], weights["t1ce_encoder.e2_c1.conv.weight"], atol=0, rtol=0)


def test_other_number_of_categories_is_refused_and_changes_nothing(weights: dict[str, Tensor]) -> None:
    rfnet = network(num_categories=5)
    before = [parameter.detach().clone() for parameter in rfnet.parameters()]
    with pytest.raises(ValueError, match=r"checkpoint\['.*has shape"):
        load_public_checkpoint(rfnet, weights)
    for expected, actual in zip(before, rfnet.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_other_values_and_networks_are_refused(weights: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="must be a tensor"):
        load_public_checkpoint(network(), weights | {"decoder_sep.seg_layer.bias": [0.0]})
    with pytest.raises(ValueError, match="Linear"):
        load_public_checkpoint(nn.Linear(1, 1), weights)


def test_mmformers_public_weights_load_but_for_convolutions_that_no_prediction_depends_on() -> None:
    shapes = json.loads((DATA / "mmformer_c4_keys.json").read_text())
    state = {f"module.{key}": torch.full(shape, float(index)) for index, (key, shape) in enumerate(shapes.items())}
    mmformer = build_network("mmformer", 4, crop_size=(32, 32, 32))
    report = load_public_checkpoint(mmformer, {"epoch": 1, "state_dict": state, "optim_dict": {}})
    assert report.missing == ()
    unused = {f"{name}_decode_conv.{kind}" for name in ("flair", "t1ce", "t1", "t2") for kind in ("weight", "bias")}
    assert set(report.unused) == unused
    values = {float(index) for index, key in enumerate(shapes) if key in report.used}
    loaded = {value for parameter in mmformer.parameters() for value in parameter.detach().unique().tolist()}
    assert loaded == values
