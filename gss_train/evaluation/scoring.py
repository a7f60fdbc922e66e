"""Score a network on whole subjects, from subsets of the modalities."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gss_train.common import ALONE, Meter, Processes
from gss_train.data import MODALITY_SUBSETS, REGIONS, Box, Dataset, PreparedSubject, Spacing, most_probable
from gss_train.evaluation.metrics import SCORES
from gss_train.evaluation.scorers import Scorers, Scores
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.inference import SlidingWindow, number_of_windows, segment_subsets, subset_probabilities
from gss_train.models import Features, SegmentationNetwork

# Whose volumes are in memory at once: that on the device, and those whose scores are not there yet.
_SUBJECTS_AHEAD = 4
_SECONDS_BETWEEN_LOOKS = 0.5

Keep = Callable[[PreparedSubject, Tensor, Tensor, Tensor], None]
OnSubjectWindow = Callable[[PreparedSubject, Box, Features], None]
OnScores = Callable[[PreparedSubject, Tensor], None]


def evaluate_subsets(
    network: SegmentationNetwork,
    subjects: Sequence[PreparedSubject],
    dataset: Dataset,
    window: SlidingWindow,
    device: torch.device,
    progress: Meter,
    *,
    subsets: Sequence[Sequence[bool]] = MODALITY_SUBSETS,
    processes: Processes = ALONE,
    measures: Collection[str] = ("dice",),
    keep: Keep | None = None,
    on_window: OnSubjectWindow | None = None,
    known: Mapping[str, Tensor] | None = None,
    on_scores: OnScores | None = None,
    workers: int = 1,
) -> SubsetScores:
    """Score the network on whole subjects, each with all of the subsets that it has the scans for.

    Scores are of the label's own voxels: where scans were brought to others, the probabilities are brought back.

    ET post-processed, which counts voxels, is left out unless all subjects have BraTS's voxels of 1 mm.

    Source: the evaluation protocol of RFNet (Ding et al., ICCV 2021).

    Args:
        network: in evaluation mode, on `device`, with the same weights in all processes.
        subjects: held out from training; the same in all processes. Where the window is larger, they are padded to it.
        dataset: for the regions.
        window: that slides over each of them.
        device: to compute on.
        progress: called with the number of windows that this process has done, that of all it is to do, and how many
            of its subjects have their scores; at each window, and every so often while it waits for scores. What it
            raises ends the evaluation.
        subsets: one flag per modality for each.
        processes: that share the work: of the subjects that are not known, number n is that of process n modulo the
            number of processes.
        measures: of `gss_train.evaluation.metrics.MEASURES`, "dice" at least.
        keep: called with each of this process's subjects, its image `[4, D, H, W]`, label `[D, H, W]` and predictions
            `[S, D, H, W]`, on the CPU, of the voxels that the network sees; predictions of subsets that the subject
            lacks a scan of are background.
        on_window: called with each of this process's subjects, the boxes of its windows in its image, and what the
            encoders made of each; before `keep`, and not at all for a subject without the scans of any subset.
        known: what the first process knows already, float64 `[measures, subsets, 4]` by the subject's name: these are
            left out. None: nothing, in all processes.
        on_scores: called with each of this process's subjects and such scores of it, as soon as they are there, and
            after `keep`.
        workers: processes that this one may start to compute HD95; see `gss_train.evaluation.scorers.Scorers`.

    Returns:
        The scores of all subjects, the same in every process.

    Raises:
        UserError: one of the `workers` was killed.
    """
    table = torch.zeros(len(subjects), len(measures), len(subsets), len(SCORES), dtype=torch.float64)
    own = _missing(subjects, known, processes)[processes.rank :: processes.size]
    if known and processes.is_first:
        for number, subject in enumerate(subjects):
            if subject.name in known:
                table[number] = known[subject.name]
    with Scorers(dataset, tuple(measures), len(own) * len(subsets), workers) as scorers:
        share = _Share(
            [subjects[number].padded_to(window.crop_size) for number in own],
            window,
            table[0].shape[:2],
            progress,
            on_scores,
        )
        for subject in share.subjects:
            _segment_and_score(share, scorers, network, subject, device, subsets, keep, on_window)
        share.collect(unfinished=0)
    for number, subject in zip(own, share.subjects, strict=True):
        table[number] = share.scores[subject.name]
    # Each row has one process that added anything but 0 to it, so that the sum is exact.
    table = processes.sum(table)
    names = SCORES if all(_has_millimetre_voxels(subject) for subject in subjects) else REGIONS
    return SubsetScores(
        tuple(subject.name for subject in subjects),
        names,
        {measure: table[:, place, :, : len(names)] for place, measure in enumerate(measures)},
        tuple(tuple(subset) for subset in subsets),
    )


def _missing(
    subjects: Sequence[PreparedSubject], known: Mapping[str, Tensor] | None, processes: Processes
) -> list[int]:
    """Numbers of the subjects that the first process does not know."""
    if known is None:
        return list(range(len(subjects)))
    names = known if processes.is_first else {}
    flags = processes.sum(torch.tensor([subject.name in names for subject in subjects], dtype=torch.int64))
    return [number for number, flag in enumerate(flags.tolist()) if not flag]


@dataclass
class _Share:
    """One process's share of an evaluation: how far it is, and the scores that are there.

    Attributes:
        subjects: of this process, in their order.
        window: that slides over each.
        shape: how many measures and subsets.
        progress: see `evaluate_subsets`.
        on_scores: likewise.
        scores: of the subjects that have them all, by name.
        windows: that are done of the subject under way.
    """

    subjects: Sequence[PreparedSubject]
    window: SlidingWindow
    shape: Sequence[int]
    progress: Meter
    on_scores: OnScores | None
    scores: dict[str, Tensor] = field(default_factory=dict)
    windows: int = 0

    def __post_init__(self) -> None:
        self._windows = [number_of_windows(subject.shape, self.window) for subject in self.subjects]
        self._segmented = 0
        self._waiting: list[tuple[PreparedSubject, dict[int, Future[Scores]]]] = []
        self.report()

    def report(self, windows: int = 0) -> None:
        """So many windows of the subject under way are done; take the scores that have come meanwhile."""
        self._take()
        self.windows = windows
        done = sum(self._windows[: self._segmented]) + windows
        self.progress(done, sum(self._windows), f"{len(self.scores)} of {len(self.subjects)} subjects scored")

    def add(self, subject: PreparedSubject, cases: dict[int, Future[Scores]]) -> None:
        """A subject is segmented, and its predictions from some subsets are being scored."""
        self._segmented += 1
        self._waiting.append((subject, cases))
        self.collect(_SUBJECTS_AHEAD - 1)

    def collect(self, unfinished: int) -> None:
        """Wait until no more than so many subjects lack scores."""
        self.report()
        while len(self._waiting) > unfinished:
            cases = [future for _, futures in self._waiting for future in futures.values() if not future.done()]
            wait(cases, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
            self.report()

    def _take(self) -> None:
        ready = [pair for pair in self._waiting if all(future.done() for future in pair[1].values())]
        for subject, cases in ready:
            scores = torch.full((*self.shape, len(SCORES)), torch.nan, dtype=torch.float64)
            for place, future in cases.items():
                scores[:, place] = torch.tensor(future.result(), dtype=torch.float64)
            self._waiting.remove((subject, cases))
            self.scores[subject.name] = scores
            if self.on_scores is not None:
                self.on_scores(subject, scores)


def _segment_and_score(
    share: _Share,
    scorers: Scorers,
    network: SegmentationNetwork,
    subject: PreparedSubject,
    device: torch.device,
    subsets: Sequence[Sequence[bool]],
    keep: Keep | None,
    on_window: OnSubjectWindow | None,
) -> None:
    """Segment a subject, and have its predictions scored."""
    image, label = read_subject(subject)
    possible = [place for place, subset in enumerate(subsets) if _has(subject, subset)]
    predictions = torch.zeros(len(subsets), *label.shape, dtype=torch.uint8)
    cases: dict[int, Future[Scores]] = {}
    if possible:
        wanted = [subsets[place] for place in possible]
        given, compared = _segment(share, network, subject, image.to(device), wanted, on_window)
        predictions[possible] = given.cpu()
        where, spacing = scorers.device(device), _truth_spacing(subject)
        truth = _truth(subject, label).to(where)
        for place, prediction in zip(possible, compared, strict=True):
            cases[place] = scorers.submit(prediction.to(where), truth, spacing)
            # Each may take seconds, and a signal may be waiting.
            share.report(share.windows)
    if keep is not None:
        keep(subject, image, label, predictions)
    share.add(subject, cases)


def _segment(
    share: _Share,
    network: SegmentationNetwork,
    subject: PreparedSubject,
    image: Tensor,
    subsets: Sequence[Sequence[bool]],
    on_window: OnSubjectWindow | None,
) -> tuple[Tensor, Iterable[Tensor]]:
    """Category indices from each subset: of the voxels that the network sees, and of those that have the truth."""
    own, watch = subject.metadata.truth, None if on_window is None else partial(on_window, subject)

    def report(done: int, _total: int) -> None:
        share.report(done)

    if own is None:
        given = segment_subsets(network, image, share.window, subsets, report, watch)
        return given, given
    probabilities = subset_probabilities(network, image, share.window, subsets, report, watch)
    grid, given = subject.grid, torch.stack([part.argmax(dim=0).to(torch.uint8) for part in probabilities])
    # One after the other: the label's voxels may be many.
    return given, (torch.from_numpy(most_probable(part.numpy(), grid, own.grid)) for part in probabilities)


def _truth(subject: PreparedSubject, label: Tensor) -> Tensor:
    return label if subject.metadata.truth is None else torch.from_numpy(subject.truth())


def _truth_spacing(subject: PreparedSubject) -> Spacing:
    metadata = subject.metadata
    return metadata.spacing if metadata.truth is None else metadata.truth.grid.spacing


def _has(subject: PreparedSubject, subset: Sequence[bool]) -> bool:
    return all(exists or not wanted for exists, wanted in zip(subject.available, subset, strict=True))


def _has_millimetre_voxels(subject: PreparedSubject) -> bool:
    return all(math.isclose(length, 1, rel_tol=0.01) for length in _truth_spacing(subject))


def read_subject(subject: PreparedSubject) -> tuple[Tensor, Tensor]:
    """All of a prepared subject: image `[4, D, H, W]` float32 and label `[D, H, W]` uint8."""
    image, label = subject.crop((0, 0, 0), subject.shape)
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(label)
