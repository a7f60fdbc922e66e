"""An evaluation as a job: what is scored is on the disk at once, and a job that was killed goes on with the rest."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gss_train.common import (
    ALONE,
    Interrupted,
    Interruption,
    Processes,
    UserError,
    default_workers,
    open_replacing,
    peak_memory_bytes,
    remove_stale_partials,
    show_progress,
)
from gss_train.data import MODALITY_SUBSETS, Dataset, PreparedSubject, subset_name
from gss_train.evaluation.folder import (
    FIGURES,
    SegmentedSubject,
    is_evaluation,
    read_evaluation,
    read_segmented,
    replace_evaluation,
    segmented_path,
    unfinished_folder,
    write_evaluation,
    write_segmented,
)
from gss_train.evaluation.metrics import SCORES
from gss_train.evaluation.scoring import evaluate_subsets
from gss_train.evaluation.subset_scores import Evaluation, SubsetScores
from gss_train.inference import SlidingWindow
from gss_train.models import SegmentationNetwork
from gss_train.runs import LOCK, locked, weights_digest

# Raised whenever the same network and subjects would get other scores.
_VERSION = 1
_DONE = "scores"
# What the machine decides over, and not the scores.
_OF_THE_CLOCK = ("seconds", "peak_memory_mb")

Draw = Callable[[Path, Evaluation, list[SegmentedSubject]], object]


@dataclass(frozen=True)
class Job:
    """A network that is to be scored from all subsets of the modalities.

    Attributes:
        name: of the run.
        network: in evaluation mode, on `device`.
        subjects: to score.
        dataset: for the regions.
        window: that slides over each subject.
        device: to compute on.
        measures: by name, of `gss_train.evaluation.MEASURES`.
        settings: how the scores come about, JSON values; see `Evaluation`. "network" and "precision" at least.
        viewed: how many subjects, the first ones, are kept to look at.
        workers: processes that may be started to compute HD95; None: one for each processor at hand, at most 8.
        timed: whether the settings get the time and the memory that it took.
    """

    name: str
    network: SegmentationNetwork
    subjects: Sequence[PreparedSubject]
    dataset: Dataset
    window: SlidingWindow
    device: torch.device
    measures: Sequence[str]
    settings: Mapping[str, Any]
    viewed: int
    workers: int | None = None
    timed: bool = False

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of all that a subject's scores depend on, but for rounding, by its name."""
        parts = {
            "version": _VERSION,
            "weights": weights_digest(self.network.state_dict()),
            "network": self.settings["network"],
            "precision": self.settings["precision"],
            "crop size": list(self.window.crop_size),
            "weighting": self.window.weighting,
            "flips": self.window.flips,
            "data set": self.dataset.to_json(),
            "subsets": [subset_name(subset) for subset in MODALITY_SUBSETS],
            "measures": list(self.measures),
        }
        return {subject.name: _digest([parts, _identity(subject)]) for subject in self.subjects}

    @property
    def fingerprint(self) -> str:
        """Of all that the scores depend on."""
        return _digest(self.fingerprints)

    @property
    def names_viewed(self) -> list[str]:
        """Names of the subjects that are kept to look at."""
        return [subject.name for subject in self.subjects[: self.viewed]]


def _identity(subject: PreparedSubject) -> list[Any]:
    """What makes the prepared volumes what they are; raw files may move, but not change."""
    metadata = subject.metadata
    sources = {role: [source.size, source.mtime_ns] for role, source in metadata.sources.items()}
    return [subject.name, list(subject.available), asdict(metadata.recipe), dict(metadata.digests), sources]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def evaluate_job(
    job: Job, output: Path, *, processes: Processes = ALONE, draw: Draw | None = None
) -> Evaluation | None:
    """Score the network, and put the evaluation's folder into its place once all of it is there.

    Each subject's scores go to the folder `.<name>.unfinished` beside the output as soon as they are there. The same
    job, started again after whatever end, takes them over; those of other weights, settings or scans are overwritten
    one by one. If the output is of the same job and complete, nothing is scored.

    Args:
        job: the same in all processes.
        output: folder of the results, on a file system that all processes share.
        processes: that share the work; the first one alone writes the results and speaks.
        draw: draws the figures into a folder, from the evaluation and the subjects to look at; None: no figures.

    Returns:
        The evaluation, in the first process; None in the others.

    Raises:
        UserError: another process has this evaluation under way, or a process that computes HD95 was killed.
        Interrupted: a signal came; what is scored is kept. Of several processes, signals end each as usual.
        OSError: a file cannot be written; what is scored is kept.
    """
    folder, finished = unfinished_folder(output), None
    unfinished = _UnfinishedFolder(folder, job)
    with ExitStack() as stack:
        if processes.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder))
            unfinished.clear()
            finished = _read_finished(output, job)
            if finished is None:
                unfinished.take_over()
        if not processes.any(finished is not None):
            scores = _score(job, unfinished, processes)
            if processes.is_first:
                finished = _write(job, unfinished, scores, draw)
                replace_evaluation(output, folder)
        elif processes.is_first and finished is not None:
            print(f"Scored already, with the same weights and settings: {output}", flush=True)
            if draw is not None and not (output / FIGURES).exists():
                draw(folder / FIGURES, finished, read_segmented(output))
                if (folder / FIGURES).exists():
                    (folder / FIGURES).replace(output / FIGURES)
    # Unlocked before: there are file systems that keep the name of an open file.
    if processes.is_first and not unfinished.has_others:
        shutil.rmtree(folder)
    return finished


def _read_finished(output: Path, job: Job) -> Evaluation | None:
    """What is in the output, if it is all that the job would write."""
    if not is_evaluation(output):
        return None
    try:
        found = read_evaluation(output)
    except UserError as error:
        print(f"{error}; it is computed again", flush=True)
        return None
    settings = {name: value for name, value in found.settings.items() if name not in _OF_THE_CLOCK}
    is_same = found.fingerprint == job.fingerprint and settings == job.settings
    return found if is_same and all(segmented_path(output, name).exists() for name in job.names_viewed) else None


class _UnfinishedFolder:
    """The folder of an evaluation that is under way.

    Attributes:
        path: of the folder.
        known: the scores that an earlier process left there, `[measures, subsets, 4]` by the subject's name.
        seconds: that those took.
    """

    def __init__(self, path: Path, job: Job) -> None:
        self.path = path
        self.known: dict[str, Tensor] = {}
        self.seconds = 0.0
        self._job = job
        self._subjects = segmented_path(path, "").parent
        self._began = self._last = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds that this process has been at it."""
        return time.monotonic() - self._began

    @property
    def has_others(self) -> bool:
        """Whether there are scores that another job may take over."""
        found = [_read(path) or {} for path in (self.path / _DONE).glob("*.json")]
        return not {content.get("fingerprint") for content in found} <= {None, *self._job.fingerprints.values()}

    def clear(self) -> None:
        """Remove all that no job takes over."""
        for entry in self.path.iterdir():
            if entry.name in {LOCK, _DONE, self._subjects.name}:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def take_over(self) -> None:
        """Find the scores that fit; the others' subjects are scored again."""
        for folder in (self.path / _DONE, self._subjects):
            remove_stale_partials(folder, locked=True)
        others = sum(self._is_another(subject.name) for subject in self._job.subjects)
        for path in self._subjects.glob("*.npz"):
            if path.name.removesuffix(".npz") not in self._job.names_viewed:
                path.unlink()
        if self.known or others:
            again = f"; {others} lie there of another evaluation or of other scans: scored again" if others else ""
            count = len(self._job.subjects)
            print(f"Unfinished: {len(self.known)} of {count} subjects are scored already{again}", flush=True)

    def _is_another(self, name: str) -> bool:
        """Whether there are scores of a subject that are not the job's; those that are become known."""
        path = self._path(name)
        if not path.exists() or (name in self._job.names_viewed and not segmented_path(self.path, name).exists()):
            return False
        shape = (len(self._job.measures), len(MODALITY_SUBSETS), len(SCORES))
        try:
            content = _read(path) or {}
            if content["fingerprint"] != self._job.fingerprints[name]:
                return True
            scores = [torch.nan if score is None else float(score) for score in content["scores"]]
            self.known[name] = torch.tensor(scores, dtype=torch.float64).reshape(shape)
            self.seconds += float(content["seconds"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            self.known.pop(name, None)
            print(f"{path}: is damaged, the subject is scored again: {error!r}", flush=True)
        return False

    def save_segmented(self, subject: PreparedSubject, image: Tensor, truth: Tensor, predictions: Tensor) -> None:
        """Bring a subject to look at to the disk; arguments and errors are those of `write_segmented`."""
        # Of another job, they must not be taken over with these predictions.
        self._path(subject.name).unlink(missing_ok=True)
        write_segmented(self.path, subject, image, truth, predictions)

    def save(self, subject: PreparedSubject, scores: Tensor) -> None:
        """Bring a subject's scores to the disk.

        Raises:
            OSError: they cannot be written; the message names the file.
        """
        now = time.monotonic()
        content = {
            "fingerprint": self._job.fingerprints[subject.name],
            "seconds": now - self._last,
            "scores": [None if score != score else score for score in scores.flatten().tolist()],  # noqa: PLR0124
        }
        self._last = now
        with open_replacing(self._path(subject.name)) as file:
            file.write(json.dumps(content, allow_nan=False).encode())

    def _path(self, name: str) -> Path:
        return self.path / _DONE / f"{name}.json"


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _score(job: Job, unfinished: _UnfinishedFolder, processes: Processes) -> SubsetScores:
    viewed, scored = set(job.names_viewed), len(unfinished.known)
    workers = default_workers() // processes.local_size if job.workers is None else job.workers
    interruption = Interruption("finishing this window or score; what is scored is kept")
    # One that waits for the others could not hear it.
    hearing = interruption if processes.size == 1 else nullcontext()

    def keep(subject: PreparedSubject, image: Tensor, truth: Tensor, predictions: Tensor) -> None:
        if subject.name in viewed:
            unfinished.save_segmented(subject, image, truth, predictions)

    def on_scores(subject: PreparedSubject, scores: Tensor) -> None:
        nonlocal scored
        unfinished.save(subject, scores)
        scored += 1

    quiet = not processes.is_first or scored == len(job.subjects)
    with hearing, show_progress("evaluating", quiet=quiet) as meter:

        def report(done: int, total: int, note: str) -> None:
            meter(done, total, note)
            if interruption.signal is not None:
                kept = f"{scored} of {len(job.subjects)} subjects are scored and kept"
                raise Interrupted(interruption.signal, f"{kept}, with the same --output it goes on")

        return evaluate_subsets(
            job.network,
            job.subjects,
            job.dataset,
            job.window,
            job.device,
            report,
            processes=processes,
            measures=job.measures,
            keep=keep,
            known=unfinished.known,
            on_scores=on_scores,
            workers=workers,
        )


def _write(job: Job, unfinished: _UnfinishedFolder, scores: SubsetScores, draw: Draw | None) -> Evaluation:
    settings = dict(job.settings)
    if job.timed:
        spent = (unfinished.seconds + unfinished.elapsed, peak_memory_bytes(job.device) / 1e6)
        settings |= dict(zip(_OF_THE_CLOCK, spent, strict=True))
    evaluation = Evaluation(job.name, job.dataset, scores, settings, job.fingerprint)
    write_evaluation(unfinished.path, evaluation)
    if draw is not None:
        draw(unfinished.path / FIGURES, evaluation, read_segmented(unfinished.path))
    return evaluation
