from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gss_train.engine.checkpoint import CheckpointError, load_weights, read_checkpoint, save_checkpoint
from gss_train.models import build_network


class Attack:
    """Creates a file when a careless reader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def small_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("rfnet", 4, crop_size=(16, 16, 16), width=4)


def test_weights_come_back(tmp_path: Path) -> None:
    saved, loaded = small_network(0), small_network(1)
    progress = {"epoch": 3, "training_subjects": ["a", "b"]}
    save_checkpoint(tmp_path / "checkpoint.pt", saved, torch.optim.Adam(saved.parameters()), progress)
    assert load_weights(loaded, tmp_path / "checkpoint.pt").training_subjects == {"a", "b"}
    for name, weight in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["progress"] == progress
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_published_checkpoint_with_its_numpy_learning_rate_is_read(tmp_path: Path, zip_format: bool) -> None:
    content = {"epoch": 299, "state_dict": {}, "optim_dict": {"param_groups": [{"lr": np.float64(2e-4)}]}}
    torch.save(content, tmp_path / "model_last.pth", _use_new_zipfile_serialization=zip_format)
    assert read_checkpoint(tmp_path / "model_last.pth")["optim_dict"]["param_groups"][0]["lr"] == 2e-4


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": Attack(tmp_path / "executed")}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


def test_faults_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing\.pt: no such file"):
        read_checkpoint(tmp_path / "missing.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        read_checkpoint(tmp_path / "cut.pt")
    network = small_network(0)
    save_checkpoint(tmp_path / "four.pt", network, torch.optim.Adam(network.parameters()), {})
    five = build_network("rfnet", 5, crop_size=(16, 16, 16), width=4)
    with pytest.raises(CheckpointError, match=r"four\.pt: does not fit"):
        load_weights(five, tmp_path / "four.pt")
    torch.save({"state_dict": {}}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match=r"empty\.pth: lacks"):
        load_weights(network, tmp_path / "empty.pth")
