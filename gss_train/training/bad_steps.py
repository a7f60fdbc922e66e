"""Batches whose loss or gradient was not finite: made again, and kept to be looked at."""

from __future__ import annotations

from pathlib import Path

from gss_train.data import AugmentationSettings, PreparedSubject, augment
from gss_train.runs import save_checkpoint
from gss_train.training.batches import TrainingBatches
from gss_train.training.gathering import TERMS, FetchedStep


def dump_bad_step(
    folder: Path, step: FetchedStep, batches: TrainingBatches, augmentation: AugmentationSettings
) -> tuple[Path, list[str]]:
    """Write what the network was given in a step to `step-00000012.pt`, tensors and plain values.

    Nothing of the batch was kept: crops and draws depend on the seed and the step alone.

    Args:
        folder: made if missing.
        step: which it is, and its numbers.
        batches: of the run.
        augmentation: of the run.

    Returns:
        The file, and the names of the subjects.
    """
    epoch, step_of_epoch = divmod(step.step, batches.plan.steps)
    batch = batches.whole_step(epoch, step_of_epoch)
    image, label = augment(batch.image, batch.label, batch.generators, augmentation)
    subjects: tuple[PreparedSubject, ...] = batches.crops.subjects
    names = [subjects[number].name for number in batch.subjects.tolist()]
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step.step + 1:08d}.pt"
    content = {
        "step": step.step + 1,
        "epoch": epoch + 1,
        "subjects": names,
        "image": image,
        "label": label,
        "available": batch.available,
        "fused_modalities": batch.fused_modalities,
        "mask_seed": batch.mask_seed,
        "terms": dict(zip(TERMS, step.terms, strict=True)),
        "gradient_norm": step.gradient_norm,
    }
    save_checkpoint(path, content)
    return path, names
