from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from gss_train.data import MODALITY_SUBSETS
from gss_train.inference.segmentation import Member, evaluation_mode, mean_probabilities, segment_subsets
from gss_train.inference.windows import SlidingWindow
from gss_train.models import build_network
from tests.gss_train.inference.networks import BrightestModality, PositionInWindow

WINDOW = SlidingWindow((4, 4, 4))
ALL = (True,) * 4


def test_every_voxel_is_segmented_from_every_subset() -> None:
    image = torch.randn(4, 9, 4, 7, generator=torch.Generator().manual_seed(0))
    network = BrightestModality()
    prediction = segment_subsets(network, image, WINDOW, MODALITY_SUBSETS)
    for subset, labels in zip(MODALITY_SUBSETS, prediction, strict=True):
        masked = torch.where(torch.tensor(subset)[:, None, None, None], image, -50.0)
        assert torch.equal(labels.long(), masked.argmax(dim=0))


def test_encoders_run_once_per_window_and_windows_overlap_by_half() -> None:
    network = BrightestModality()
    segment_subsets(network, torch.zeros(4, 9, 4, 7), WINDOW, MODALITY_SUBSETS)
    # Starts 0, 2, 4, 5 on an axis of 9; 0 on one of 4; 0, 2, 3 on one of 7.
    assert network.encoded == 4 * 1 * 3


@pytest.mark.parametrize("flips", [False, True])
def test_every_window_is_shown_once_with_its_features_as_they_lie_in_the_volume(flips: bool) -> None:
    image, shown = noise(9, 4, 7), torch.zeros(9, 4, 7)

    def on_window(box: tuple[slice, slice, slice], features: tuple[Tensor, ...]) -> None:
        assert torch.equal(features[0][0], image[:, *box])
        shown[box] += 1

    segment_subsets(BrightestModality(), image, SlidingWindow((4, 4, 4), flips=flips), [ALL], on_window=on_window)
    along = torch.tensor([1, 1, 2, 2, 2, 3, 2, 2, 1]), torch.tensor([1, 1, 2, 3, 2, 2, 1])
    assert torch.equal(shown, (along[0][:, None, None] * along[1]).expand(9, 4, 7).float())


def test_probabilities_are_averaged_uniformly() -> None:
    prediction = segment_subsets(PositionInWindow(), torch.zeros(4, 4, 4, 6), WINDOW, [(True,) * 4])[0]
    # Windows at 0 and 2: voxels 2 and 3 average (0.6 + 0.1) / 2 and (0.95 + 0.3) / 2.
    assert prediction[0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_volume_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="axis of 3 voxels"):
        segment_subsets(BrightestModality(), torch.zeros(4, 3, 4, 4), WINDOW, [(True,) * 4])


def noise(*shape: int) -> Tensor:
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))


def test_windows_that_are_weighted_trust_their_middle() -> None:
    weights = SlidingWindow((4, 6, 8), "gaussian").weights()
    assert weights.shape == (4, 6, 8)
    assert weights.min() > 0
    # Separable: every line along an axis is the same bell, an eighth of the axis wide.
    bell = torch.exp(-0.5 * torch.tensor([-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5]) ** 2)
    for line in weights.flatten(0, 1):
        torch.testing.assert_close(line / line[3], bell / bell[3])
    assert torch.equal(SlidingWindow((4, 6, 8)).weights(), torch.ones(4, 6, 8))


def test_probabilities_are_averaged_with_the_weights() -> None:
    window = SlidingWindow((4, 4, 4), "gaussian")
    one = mean_probabilities([Member(PositionInWindow(), window)], torch.zeros(4, 4, 4, 6), ALL)[1, 0, 0]
    bell = torch.exp(-0.5 * (torch.tensor([-1.5, -0.5, 0.5, 1.5]) / 0.5) ** 2)
    values = torch.tensor([0.1, 0.3, 0.6, 0.95])
    sums, weights = torch.zeros(6), torch.zeros(6)
    for start in (0, 2):
        sums[start : start + 4] += bell * values
        weights[start : start + 4] += bell
    torch.testing.assert_close(one, sums / weights)


def test_flips_average_over_the_eight_mirror_images() -> None:
    """Of a network whose answer depends on the position in the window."""
    window = SlidingWindow((4, 4, 4), flips=True)
    network = PositionInWindow()
    one = mean_probabilities([Member(network, window)], torch.zeros(4, 4, 4, 4), ALL)[1]
    values = torch.tensor([0.1, 0.3, 0.6, 0.95])
    torch.testing.assert_close(one, ((values + values.flip(0)) / 2).expand(4, 4, 4))


@pytest.mark.parametrize("axes", [axes for count in range(4) for axes in itertools.combinations((1, 2, 3), count)])
def test_with_flips_a_mirrored_scan_gives_the_mirrored_answer(axes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = build_network("uhved", 4, crop_size=(16, 16, 16), width=4).eval()
    window, image = SlidingWindow((16, 16, 16), flips=True), noise(16, 16, 16)
    expected = mean_probabilities([Member(network, window)], image, ALL).flip(axes)
    found = mean_probabilities([Member(network, window)], image.flip(axes), ALL)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("weighting", ["uniform", "gaussian"])
def test_an_ensemble_is_the_mean_of_its_members(weighting: str) -> None:
    """Whose windows may be of different sizes."""
    image = noise(9, 8, 7)
    members = [
        Member(PositionInWindow(), SlidingWindow((4, 4, 4), weighting)),
        Member(PositionInWindow(), SlidingWindow((6, 5, 4), weighting)),
    ]
    together = mean_probabilities(members, image, ALL)
    alone = torch.stack([mean_probabilities([member], image, ALL) for member in members])
    torch.testing.assert_close(together, alone.mean(dim=0))
    torch.testing.assert_close(together.sum(dim=0), torch.ones(9, 8, 7))
    with pytest.raises(ValueError, match="members: got none"):
        mean_probabilities([], image, ALL)


def test_labels_are_those_of_the_largest_mean_probability() -> None:
    torch.manual_seed(0)
    network = build_network("uhved", 4, crop_size=(16, 16, 16), width=4).eval()
    window, image = SlidingWindow((16, 16, 16), "gaussian"), noise(37, 16, 20)
    subsets = [ALL, (False, True, False, False)]
    labels = segment_subsets(network, image, window, subsets)
    for subset, found in zip(subsets, labels, strict=True):
        probabilities = mean_probabilities([Member(network, window)], image, subset)
        assert torch.equal(found.long(), probabilities.argmax(dim=0))


def test_progress_counts_the_windows_of_all_members() -> None:
    reports: list[tuple[int, int]] = []
    members = [Member(PositionInWindow(), WINDOW), Member(PositionInWindow(), WINDOW)]
    mean_probabilities(members, torch.zeros(4, 8, 4, 6), ALL, lambda done, total: reports.append((done, total)))
    assert reports == [(done, 12) for done in range(1, 13)]


def test_memory_does_not_grow_with_the_first_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that is allocated at once, only labels do, with a byte for each voxel and subset."""
    allocated: list[int] = []
    zeros = torch.zeros

    def counting(shape: tuple[int, ...], **options: object) -> Tensor:
        tensor = zeros(shape, **options)
        allocated.append(tensor.numel())
        return tensor

    for length in (8, 80):
        image = noise(length, 4, 6)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "zeros", counting)
            segment_subsets(BrightestModality(), image, WINDOW, MODALITY_SUBSETS)
    # 15 subsets of 4 categories on the 4 planes of a window, once for each volume.
    assert allocated == [15 * 4 * 4 * 4 * 6] * 2


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm1d(2).eval()
        self.other = nn.Dropout()


def test_evaluation_mode_gives_every_module_its_mode_back() -> None:
    network = Branching()
    with evaluation_mode(network):
        assert not any(module.training for module in network.modules())
    assert (network.training, network.frozen.training, network.other.training) == (True, False, True)
    with pytest.raises(KeyboardInterrupt), evaluation_mode(network):
        raise KeyboardInterrupt
    assert network.training
