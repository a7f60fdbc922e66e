"""What the vote of group self-support knows of whole subjects: its routes where a category truly is, and its Dice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gss_kernels import ROUTES, CategoryGroups, GSSSettings, fused_gss_loss, gss_soft_targets
from gss_kernels.settings import VoteOptions
from gss_train.common import ALONE, Processes
from gss_train.data import MODALITIES, Box, Dataset, PreparedSubject
from gss_train.evaluation import MEASURES
from gss_train.models import Features, SegmentationNetwork
from gss_train.runs import VoteRecord

_PREDICTIONS = ("target", *MODALITIES, "fusion")


class VoteCount:
    """Has the modalities vote in each window of an evaluation, as they do in a training with GSS.

    The encoders' features are those of the evaluation, so that only the modalities' decoders and one more fusion run.
    The device keeps six predictions of one whole subject, each C float32 for a voxel.

    - Dice: where windows overlap, a voxel's probabilities, or soft targets, are averaged over them, each window alike;
      then its most probable category counts. Two empty categories score 1, as in `gss_train.evaluation.region_dice`.
      The mean is over the subjects with two scans or more, that of a modality over those of them that have its scan.
    - Routes: a voxel counts once in every window that has it, as each of them is a vote of its own. The voxels of all
      subjects are one lot.

    Args:
        network: in evaluation mode, with separate predictions.
        subjects: that are evaluated, the same in all processes.
        dataset: for the categories and their leaders.
        settings: of the vote.
        processes: that share the subjects as `gss_train.evaluation.evaluate_subsets` does.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        subjects: Sequence[PreparedSubject],
        dataset: Dataset,
        settings: GSSSettings,
        processes: Processes = ALONE,
    ) -> None:
        self._network = network
        self._dataset = dataset
        self._settings = settings._replace(mask_ratio=0.0)
        self._processes = processes
        self._rows = {subject.name: number for number, subject in enumerate(subjects)}
        categories = dataset.num_categories
        self._dice = torch.zeros(len(subjects), len(_PREDICTIONS), categories, dtype=torch.float64)
        self._routes = torch.zeros(len(subjects), categories, len(ROUTES), dtype=torch.float64)
        self._votes: _SubjectVotes | None = None

    def on_window(self, subject: PreparedSubject, box: Box, features: Features) -> None:
        """Vote in one window; the windows of a subject follow each other.

        Args:
            subject: with whatever scans; with fewer than two there is no vote.
            box: of the window in the subject's voxels.
            features: of the window.
        """
        if sum(subject.available) < 2:
            return
        if self._votes is None:
            self._votes = _SubjectVotes(subject, self._dataset.groups, self._settings, features[0].device)
        available = self._votes.available
        separate = [logits.float() for logits in self._network.decode_separately(features)]
        self._votes.add(box, separate, self._network.fuse(features, available).float())

    def on_subject(self, subject: PreparedSubject, *_: Tensor) -> None:
        """Score a subject, after its last window."""
        row, votes = self._rows[subject.name], self._votes
        self._dice[row] = torch.nan if votes is None else votes.dice()
        if votes is not None:
            self._routes[row] = votes.routes
        # Before the next subject is read: these are volumes.
        self._votes = None

    def record(self) -> VoteRecord | None:
        """What all processes have counted, the same in each; None if no subject had a vote."""
        # Each row has one process that added anything but 0 to it, so that the sums are exact.
        dice, routes = self._processes.sum(self._dice), self._processes.sum(self._routes).sum(dim=0)
        names = self._dataset.categories
        voted = int((~dice[:, 0, 0].isnan()).sum())
        if not voted:
            return None
        return VoteRecord(
            voted,
            dict(zip(names, _rows(routes / routes.sum(dim=1, keepdim=True), ROUTES), strict=True)),
            dict(zip(_PREDICTIONS, _rows(dice.nanmean(dim=0), names), strict=True)),
        )


class _SubjectVotes:
    """The votes on one subject.

    Attributes:
        available: `[1, M]` bool, the scans that it has.
        routes: `[C, 4]` float64, on the CPU, how many voxels of each category by the route of that category's vote.

    Args:
        subject: with two scans or more.
        groups: the leaders of every category.
        settings: of the vote, in which no voxel is masked.
        device: of the logits.
    """

    def __init__(
        self, subject: PreparedSubject, groups: CategoryGroups, settings: GSSSettings, device: torch.device
    ) -> None:
        _, label = subject.crop((0, 0, 0), subject.shape)
        self.available = torch.tensor([subject.available], device=device)
        self.routes = torch.zeros(groups.num_categories, len(ROUTES), dtype=torch.float64)
        self._groups = groups
        self._settings = settings._asdict()
        self._truth = torch.from_numpy(label).to(device)
        self._sums = torch.zeros(len(_PREDICTIONS), groups.num_categories, *label.shape, device=device)

    def add(self, box: Box, separate: Sequence[Tensor], fused: Tensor) -> None:
        """Vote in a window, from M logits `[1, C, d, h, w]` and those of the fusion, all float32."""
        vote = {name: self._settings[name] for name in VoteOptions.__annotations__}
        target = gss_soft_targets(separate, self._groups, available=self.available, **vote)
        predictions = [target, *(torch.softmax(logits, dim=1) for logits in (*separate, fused))]
        for sums, (probabilities,) in zip(self._sums, predictions, strict=True):
            sums[:, *box] += probabilities
        truth = self._truth[box].flatten()
        flat = [logits.flatten(2) for logits in separate]
        for category in range(len(self.routes)):
            (voxels,) = (truth == category).nonzero(as_tuple=True)
            if len(voxels):
                shares = self._shares_by_route([logits[:, :, voxels] for logits in flat])[category]
                # The shares are rounded; what they are shares of are whole voxels.
                self.routes[category] += (shares.double().cpu() * len(voxels)).round()

    def _shares_by_route(self, logits: Sequence[Tensor]) -> Tensor:
        """Of some voxels, `[C, 4]`, from M logits `[1, C, voxels]`; no voxel is masked."""
        _, statistics = fused_gss_loss(
            logits, self._groups, available=self.available, return_stats=True, **self._settings
        )
        return statistics.routes

    def dice(self) -> Tensor:
        """Of each prediction and category, `[6, C]` float64 on the CPU; NaN of modalities without a scan."""
        labels = torch.stack([sums.argmax(dim=0).to(torch.uint8) for sums in self._sums])
        compute = MEASURES["dice"].compute
        by_category = [
            compute(labels == category, self._truth == category, (1, 1, 1)) for category in range(len(self.routes))
        ]
        dice = torch.stack(by_category, dim=1).cpu()
        dice[1:-1][~self.available[0].cpu()] = torch.nan
        return dice


def _rows(values: Tensor, names: Sequence[str]) -> list[dict[str, float | None]]:
    """Rows by name; JSON has no NaN."""
    return [
        {name: None if math.isnan(value) else value for name, value in zip(names, row, strict=True)}
        for row in values.tolist()
    ]
