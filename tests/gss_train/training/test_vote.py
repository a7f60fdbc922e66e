"""What a validation says of the vote, against the same worked out voxel by voxel."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gss_kernels import ROUTES, GSSSettings
from gss_train.config import SelfSupportOptions
from gss_train.data import DATASETS, MODALITIES, PreparedSubject
from gss_train.evaluation import read_subject
from gss_train.inference.windows import window_starts
from gss_train.models import SegmentationOutput, build_network
from gss_train.runs.records import MetricsLog, ValidationRecord, VoteRecord, read_records
from gss_train.training.objective import Objective, gss_objective
from gss_train.training.validation import FEW_SUBSETS, validate
from tests.gss_train.training.voxelwise import VoxelwiseNetwork, make_subject

DATASET = DATASETS["brats2018"]
NAMES = DATASET.categories
CROP = 4
ALL = (True,) * 4


class Positional(VoxelwiseNetwork):
    """Its predictions depend on where in a window a voxel lies, and are sure of themselves here and there."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.places = 3 * torch.randn(5, 4, CROP, CROP, CROP, generator=generator)

    def fuse(self, features: tuple[torch.Tensor, ...], fused_modalities: torch.Tensor) -> torch.Tensor:
        return super().fuse(features, fused_modalities) + self.places[4]

    def decode_separately(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        own = super().decode_separately(features)
        # Each modality is sure of the category that it shows, and of another in some voxels.
        return tuple(
            logits + place + 8 * (features[0][:, [number]] > 1) * torch.eye(4)[number].view(1, 4, 1, 1, 1)
            for number, (logits, place) in enumerate(zip(own, self.places[:4], strict=True))
        )


def make_subjects(folder: Path, *available: tuple[bool, ...]) -> list[PreparedSubject]:
    """Of lengths that no window divides, so that voxels lie in one window, in two, and in eight."""
    subjects = [make_subject(folder, f"subject-{number}", number, size=7) for number in range(len(available))]
    return [
        dataclasses.replace(subject, metadata=dataclasses.replace(subject.metadata, available=flags))
        for subject, flags in zip(subjects, available, strict=True)
    ]


def validated(network: VoxelwiseNetwork, subjects: list[PreparedSubject], **options: Any) -> ValidationRecord:
    where = {"stage": "baseline", "epoch": 3, "step": 12, "subsets": FEW_SUBSETS}
    return validate(network, subjects, DATASET, (CROP,) * 3, torch.device("cpu"), **where, **options)


def vote_on(network: VoxelwiseNetwork, subjects: list[PreparedSubject], **options: Any) -> VoteRecord:
    vote = validated(network, subjects, **options).vote
    assert vote is not None
    return vote


def softmax(logits: np.ndarray, temperature: float = 1) -> np.ndarray:
    powers = np.exp((logits - logits.max()) / temperature)
    return powers / powers.sum()


def vote_on_voxel(logits: dict[int, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Target and routes of the categories, as docs/kernels.md has them, from the logits of the modalities present."""
    settings = GSSSettings()
    sharp = {modality: softmax(own) for modality, own in logits.items()}
    tempered = {modality: softmax(own, 8) for modality, own in logits.items()}
    votes, routes = [], []
    for category, leading in enumerate(DATASET.groups.leaders):
        leaders = [modality for modality in logits if modality in leading]
        members = [modality for modality in logits if modality not in leading]
        sure = [sharp[modality][category] > settings.leader_threshold for modality in leaders]
        own = [tempered[modality][category] for modality in leaders]
        if sure and all(sure):
            route, vote = "leaders agree", max(own)
        elif any(sure):
            route, vote = "leaders split", max(own) - settings.leader_blend * (max(own) - min(own))
        elif members and all(sharp[modality][category] > settings.member_threshold for modality in members):
            route, vote = "members", np.mean([tempered[modality][category] for modality in members])
        else:
            route, vote = "minimum", min(probabilities[category] for probabilities in tempered.values())
        votes.append(vote)
        routes.append(route)
    return np.array(votes) / sum(votes), routes


def expected_vote(network: VoxelwiseNetwork, subjects: list[PreparedSubject]) -> VoteRecord:
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    scores: dict[str, list[list[float]]] = {name: [] for name in ("target", *MODALITIES, "fusion")}
    for subject in subjects:
        image, truth = (values.numpy() for values in read_subject(subject))
        present = [number for number, exists in enumerate(subject.available) if exists]
        means = {name: np.zeros((4, *truth.shape)) for name in scores}
        for corner in itertools.product(*(window_starts(length, CROP) for length in truth.shape)):
            box = tuple(slice(start, start + CROP) for start in corner)
            with torch.no_grad():
                features = (torch.from_numpy(image[:, *box])[None],)
                separate = [logits[0].numpy() for logits in network.decode_separately(features)]
                fused = network.fuse(features, torch.tensor([subject.available]))[0].numpy()
            for place in itertools.product(range(CROP), repeat=3):
                voxel = tuple(start + offset for start, offset in zip(corner, place, strict=True))
                target, routes = vote_on_voxel({number: separate[number][:, *place] for number in present})
                counts[truth[voxel]][routes[truth[voxel]]] += 1
                means["target"][:, *voxel] += target
                means["fusion"][:, *voxel] += softmax(fused[:, *place])
                for number in present:
                    means[MODALITIES[number]][:, *voxel] += softmax(separate[number][:, *place])
        for name, sums in means.items():
            predicted = sums.argmax(axis=0)
            if name not in MODALITIES or MODALITIES.index(name) in present:
                scores[name].append([dice(predicted == category, truth == category) for category in range(4)])
    return VoteRecord(
        len(subjects),
        {
            name: {route: counts[category][route] / counts[category].total() for route in ROUTES}
            for category, name in enumerate(NAMES)
        },
        {name: dict(zip(NAMES, np.mean(rows, axis=0).tolist(), strict=True)) for name, rows in scores.items() if rows},
    )


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    both = int(predicted.sum() + true.sum())
    return 2 * int((predicted & true).sum()) / both if both else 1.0


def assert_same(found: VoteRecord, expected: VoteRecord) -> None:
    assert found.subjects == expected.subjects
    for kind in ("routes", "dice"):
        for name, values in getattr(expected, kind).items():
            assert getattr(found, kind)[name] == pytest.approx(values, abs=1e-6), (kind, name)


@pytest.fixture
def network() -> Positional:
    torch.manual_seed(0)
    return Positional()


def test_routes_and_dice_are_those_of_every_voxel_in_every_window(network: Positional, tmp_path: Path) -> None:
    subjects = make_subjects(tmp_path, ALL, ALL)
    vote = vote_on(network, subjects)
    assert_same(vote, expected_vote(network, subjects))
    # The network takes all routes, and no two predictions are the same.
    assert {route for shares in vote.routes.values() for route, share in shares.items() if share} == set(ROUTES)
    assert len({tuple(scores.values()) for scores in vote.dice.values()}) == 6


def test_a_scan_that_is_missing_neither_votes_nor_scores(network: Positional, tmp_path: Path) -> None:
    subjects = make_subjects(tmp_path, ALL, (True, False, True, True), (False, False, True, True))
    assert_same(vote_on(network, subjects), expected_vote(network, subjects))
    without = vote_on(network, subjects[1:])
    assert set(without.dice["T1ce"].values()) == {None}
    assert without.subjects == 2


def test_a_lone_scan_has_no_vote(network: Positional, tmp_path: Path) -> None:
    first, second = make_subjects(tmp_path, (False, True, False, False), ALL)
    assert validated(network, [first]).vote is None
    assert vote_on(network, [first, second]) == vote_on(network, [second])


def test_a_category_that_no_subject_has_is_none_and_scores_one_where_nobody_sees_it(
    network: Positional, tmp_path: Path
) -> None:
    (subject,) = make_subjects(tmp_path, ALL)
    voxels = np.load(subject.path)
    voxels["label"][voxels["label"] == 3] = 0
    np.save(subject.path, voxels)
    network.places[:, 3] = -1000
    vote = vote_on(network, [subject])
    assert set(vote.routes["ET"].values()) == {None}
    assert vote.dice["T1ce"]["ET"] == vote.dice["target"]["ET"] == 1
    json.dumps(dataclasses.asdict(vote), allow_nan=False)


@pytest.mark.parametrize("options", [{}, {"semantics": "released", "leader_threshold": 0.3, "temperature": 2.0}])
def test_the_vote_is_that_of_the_objective(network: Positional, tmp_path: Path, options: dict[str, Any]) -> None:
    """On one window, with all voxels of one category, the routes are the statistics of the training's own vote."""
    (subject,) = make_subjects(tmp_path, ALL)
    voxels = np.load(subject.path)[:CROP, :CROP, :CROP]
    voxels["label"] = 2
    np.save(subject.path, voxels)
    subject = dataclasses.replace(subject, metadata=dataclasses.replace(subject.metadata, box=((0, CROP),) * 3))
    image, truth = read_subject(subject)
    # Seeing the validation's voxels, all of them: the training leaves some out.
    loss = Objective(DATASET.groups, gss_objective(SelfSupportOptions(**options, mask_ratio=0.0)))
    with torch.no_grad():
        output = SegmentationOutput(
            network.fuse((image[None],), torch.tensor([ALL])),
            network.decode_separately((image[None],)),
            None,
            torch.zeros(()),
        )
        statistics = loss(output, truth[None], torch.tensor([ALL]), seed=0, return_stats=True).statistics
    assert statistics is not None
    vote = vote_on(network, [subject], vote_settings=SelfSupportOptions(**options).settings())
    assert list(vote.routes["ED"].values()) == pytest.approx(statistics.routes[2].tolist())


@pytest.mark.parametrize("name", ["uhved", "robustseg"])
def test_a_network_without_separate_predictions_is_validated_without_a_vote(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network(name, 4, crop_size=16, width=2, separate_decoder=False)
    subject = make_subject(tmp_path, "a", 0, size=16)
    where = {"stage": "baseline", "epoch": 1, "step": 1}
    record = validate(network, [subject], DATASET, (16, 16, 16), torch.device("cpu"), **where)
    assert record.vote is None
    assert record.mean_dice is not None


def test_a_window_is_encoded_once(network: Positional, tmp_path: Path) -> None:
    seen = SimpleNamespace(count=0)
    encode = network.encode

    def count(x: torch.Tensor, available: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        seen.count += 1
        return encode(x, available)

    network.encode = count  # type: ignore[method-assign]
    validated(network, make_subjects(tmp_path, ALL))
    assert seen.count == len(window_starts(7, CROP)) ** 3


def test_records_keep_the_vote_and_older_ones_have_none(network: Positional, tmp_path: Path) -> None:
    record = validated(network, make_subjects(tmp_path, ALL, (False, False, True, True)))
    line = {"kind": "validation", **dataclasses.asdict(record)}
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(line)
    del line["vote"]
    log.append(line)
    log.close()
    found = read_records(tmp_path / "metrics.jsonl").validations
    assert found == [record, dataclasses.replace(record, vote=None)]
