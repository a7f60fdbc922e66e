"""The prediction of one subject: the whole command, from raw scans to a label map, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.measuring import Figures, Measure, Size
from gss_train.data import DATASETS
from gss_train.models import NETWORKS, build_network

if TYPE_CHECKING:
    from gss_train.runs import TrainedNetwork

_SIZE = {"full": (240, 240, 155), "small": (24, 24, 24)}
_SPACING = {"full": 1.0, "small": 9.0}
_EDGE = {"full": 80, "small": 16}
_THREADS = "2"
# What the process held at most is known at its end, and to itself.
_COMMAND = """
import sys
from pathlib import Path
from gss_train.common import peak_resident_bytes
from gss_train.predict import main
status = main(sys.argv[2:])
Path(sys.argv[1]).write_text(str(peak_resident_bytes()))
sys.exit(status)
"""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, size: Size) -> list[str]:
    """Flags that name the scans of a phantom on the grid of BraTS."""
    pytest.importorskip("nilearn", reason="needs the packages of the phantom")
    from gss_train.phantom import generate_phantoms  # noqa: PLC0415  (needs these packages)

    (folder,) = generate_phantoms("brats2020", tmp_path_factory.mktemp("phantom") / "raw", 1, 0, _SIZE[size], 1)
    return [
        part
        for name in ("flair", "t1ce", "t1", "t2")
        for part in (f"--{name}", str(folder / f"{folder.name}_{name}.nii.gz"))
    ]


def _network(size: Size) -> TrainedNetwork:
    """With random weights, which take as long as any others."""
    from gss_train.runs import TrainedNetwork  # noqa: PLC0415  (needs the training dependencies)

    dataset, edge = DATASETS["brats2020"], _EDGE[size]
    width = 4 if size == "small" else NETWORKS["rfnet"].width
    torch.manual_seed(0)
    network = build_network("rfnet", dataset.num_categories, crop_size=(edge,) * 3, width=width)
    return TrainedNetwork(network, "rfnet", dataset, (edge,) * 3, Path("random"), frozenset(), width)


def test_prediction(measure: Measure, size: Size, scans: list[str], tmp_path: Path) -> None:
    pytest.importorskip("tyro", reason="needs the training dependencies")
    from gss_train.runs import export_network  # noqa: PLC0415  (as above)

    model, label_map, peak = tmp_path / "model.pt", tmp_path / "map.nii.gz", tmp_path / "peak"
    trained = _network(size)
    export_network(trained, model)
    flags = ["--model", str(model), *scans, "--output", str(label_map), "--device", "cpu"]
    flags += ["--spacing", str(_SPACING[size])]
    figures: Figures = {}

    def predict() -> None:
        command = [sys.executable, "-c", _COMMAND, str(peak), *flags]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": _THREADS})
        figures["peak_resident_mb"] = int(peak.read_text()) / 1e6

    shape = " x ".join(map(str, _SIZE[size]))
    width = "published" if trained.width == NETWORKS["rfnet"].width else trained.width
    measure(
        predict,
        group=f"prediction of {shape} voxels, rfnet, width {width}, windows of {_EDGE[size]}^3, {_THREADS} threads",
        name="predict",
        once=True,
        figures=figures,
    )
    assert label_map.exists()
