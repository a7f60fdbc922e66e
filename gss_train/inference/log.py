"""What is written beside a label map: how it came about and what its values mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.config import ComputedPrecision
from gss_train.data import REGIONS, Dataset
from gss_train.inference.ensemble import Ensemble
from gss_train.inference.outputs import Outputs
from gss_train.inference.prediction import Prediction

_VERSION = 1


def describe(
    prediction: Prediction,
    ensemble: Ensemble,
    precisions: Sequence[ComputedPrecision],
    outputs: Outputs,
    volumes: Mapping[str, float],
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The log of one subject, as JSON values.

    Args:
        prediction: of the subject.
        ensemble: that predicted it.
        precisions: that its networks computed in.
        outputs: the files.
        volumes: from `region_millilitres`.
        notes: what was done otherwise than usual, such as a resampling.
        settings: of the sliding window and the like.
    """
    scans, dataset = prediction.scans, ensemble.dataset
    return {
        "version": _VERSION,
        "subject": scans.name,
        "label_map": outputs.label_map.name,
        "probabilities": None if outputs.probabilities is None else outputs.probabilities.name,
        "scans": {modality: str(path) for modality, path in scans.files.items()},
        "missing_modalities": list(scans.missing),
        "warnings": list(scans.warnings),
        "notes": list(notes),
        "labels": {str(v): name for v, name in zip(dataset.label_values, dataset.categories, strict=True)},
        "regions": {
            region: [dataset.label_values[category] for category in dataset.regions[region]] for region in REGIONS
        },
        "region_millilitres": dict(volumes),
        "models": [
            {
                "path": str(member.origin),
                "network": member.network_name,
                "dataset": member.dataset.title,
                "crop_size": list(member.crop_size),
                "precision": precision,
            }
            for member, precision in zip(ensemble.members, precisions, strict=True)
        ],
        "settings": dict(settings),
        "grid": {
            "shape": list(scans.first.voxels.shape),
            "spacing_mm": list(scans.first.grid.spacing),
            "orientation": scans.first.orientation,
            "affine": scans.first.affine.tolist(),
        },
        "segmented_grid": {
            "orientation": "LPS",
            "spacing_mm": list(scans.grid.spacing),
            "resampled": bool(scans.resampled),
            "box": [[axis.start, axis.stop] for axis in prediction.box],
        },
    }


def region_millilitres(
    categories: npt.NDArray[np.uint8], dataset: Dataset, affine: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Volumes of WT, TC and ET.

    Args:
        categories: [D,H,W] category indices.
        dataset: for what belongs to each region.
        affine: of their grid, for the voxels' size.
    """
    counts = np.bincount(categories.ravel(), minlength=dataset.num_categories)
    millilitres = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    return {region: round(float(counts[list(dataset.regions[region])].sum()) * millilitres, 3) for region in REGIONS}
