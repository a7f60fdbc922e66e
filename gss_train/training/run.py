"""A whole run: plan, prepare, train, evaluate."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stdout
from typing import Any

import torch

from gss_train.common import (
    Interrupted,
    Interruption,
    Processes,
    UserError,
    device_type,
    join_processes,
    pick_device,
)
from gss_train.config import ENVIRONMENT_FILE, Config
from gss_train.data import Preparation, PreparedSubject, Split, TrainingCrops, in_use
from gss_train.evaluation import split_settings
from gss_train.inference import arithmetic
from gss_train.models import SegmentationNetwork, build_network
from gss_train.runs import (
    UNNAMED_SUBJECTS,
    CheckpointError,
    LoadedWeights,
    RunFolder,
    describe_environment,
    load_weights,
    refuse_other_settings,
    run_status,
)
from gss_train.subjects import Source, find_source, prepare_source, resolve_dataset
from gss_train.training.announcement import announcement
from gss_train.training.averaging import WeightAverage
from gss_train.training.batches import TrainingBatches
from gss_train.training.final_evaluation import finish
from gss_train.training.gathering import Gathered
from gss_train.training.log import TrainingLog
from gss_train.training.loop import train
from gss_train.training.memory import full_memory_explained
from gss_train.training.plan import Drawing, TrainingPlan, plan_training
from gss_train.training.recorder import Recorder
from gss_train.training.resources import check_resources
from gss_train.training.state import TrainingState
from gss_train.training.validation import ValidationSubjects


def run_training(config: Config, drawing: Drawing) -> None:
    """Train, evaluate and leave a run folder; or go on with the run in the folder, from where it was stopped.

    In several processes, as `torchrun` starts them, all of them train and evaluate; the first one alone writes and
    speaks.

    Raises:
        UserError: a setting, a file or the data cannot be used; the message names it.
        OSError: the disk is full, or a folder cannot be written.
        ModuleNotFoundError: an optional package is needed and not installed.
        Interrupted: a signal came while it trained; the run is saved and can go on.
    """
    with join_processes(device_type(config.run.device)) as processes, _speech(processes):
        device = pick_device(config.run.device, None if processes.group is None else processes.local_rank)
        config, dataset = resolve_dataset(config)
        plan = plan_training(config, dataset, device, processes, drawing)
        if plan.status == "finished":
            _show_finished(plan)
            return
        with arithmetic(plan.computation.precision, deterministic=plan.computation.deterministic), ExitStack() as held:
            _carry_out(plan, held)


def _carry_out(plan: TrainingPlan, held: ExitStack) -> None:
    network, origin = _first_weights(plan)
    announced = announcement(plan, network, origin)
    print("\n".join(announced), flush=True)
    source = _find_in_turn(plan, origin)
    resources = check_resources(plan, network, source)
    source, preparation = _prepare_in_turn(plan, source, held)
    subjects = {subject.name: subject for subject in preparation.subjects}
    training, often, at_ends, test = (
        [subjects[name] for name in names]
        for names in (source.split.train, source.validation, source.stage_validation, source.split.test)
    )
    with _open_folder(plan, source.split, preparation) as folder, full_memory_explained(resources.size):
        # Another process may have been here while the scans were prepared.
        if plan.processes.any(folder is not None and run_status(plan.output) == "finished"):
            _show_finished(plan)
            return
        TrainingLog(folder, plan.clock).note(*announced, *resources.lines)
        batches = _batches(plan, training)
        state, progress = _load_state(plan, network, batches, origin)
        trained = _train(plan, state, progress, batches, ValidationSubjects(often, at_ends), folder)
        finish(plan, trained, test, split_settings(plan.dataset, source.split, state.training_subjects), folder)


def _show_finished(plan: TrainingPlan) -> None:
    print(f"This run is finished already:\n\n{(plan.output / 'subsets.md').read_text(encoding='utf-8')}")


def _speech(processes: Processes) -> AbstractContextManager[object]:
    """Only the first process says what all of them do; errors are everybody's own."""
    return nullcontext() if processes.is_first else redirect_stdout(io.StringIO())


def _first_weights(plan: TrainingPlan) -> tuple[SegmentationNetwork, LoadedWeights | None]:
    """The network with the weights of its seed or, where the training begins from it, of `--init-from`."""
    config = plan.config
    torch.manual_seed(config.run.seed)
    try:
        network = build_network(
            config.network.network,
            plan.dataset.num_categories,
            crop_size=config.data.crop,
            width=config.network.width,
            activation_checkpointing=config.network.activation_checkpointing,
        ).to(plan.device)
    except ValueError as error:
        raise UserError(f"--network, --crop-size, --width: {error}") from error
    if config.training.init_from is None or plan.status == "begun":
        return network, None
    return network, load_weights(network, config.training.init_from, config, plan.dataset)


def _find_in_turn(plan: TrainingPlan, origin: LoadedWeights | None) -> Source:
    """The first process finds the scans, or makes some; the others wait, and find them."""
    if not plan.processes.is_first:
        plan.processes.barrier()
    source = find_source(plan.config, plan.dataset)
    if origin is not None:
        _refuse_leak(plan, origin, source.split.test)
    if plan.processes.is_first:
        plan.processes.barrier()
    return source


def _prepare_in_turn(plan: TrainingPlan, source: Source, held: ExitStack) -> tuple[Source, Preparation]:
    """The first process prepares; the others wait, and find it done. All keep the files until `held` ends."""
    if not plan.processes.is_first:
        plan.processes.barrier()
    held.enter_context(in_use(source.raw.prepared_folder))
    prepared = prepare_source(source, skip_bad=plan.config.data.skip_bad)
    if plan.processes.is_first:
        plan.processes.barrier()
    return prepared


def _refuse_leak(plan: TrainingPlan, origin: LoadedWeights, test: Sequence[str]) -> None:
    """Weights must not be tested on subjects that they were trained on."""
    leaked = sorted(origin.training_subjects & set(test))
    if leaked:
        raise UserError(
            f"--init-from: {plan.config.training.init_from} was trained on {len(leaked)} of the {len(test)} test "
            f"subjects, such as {leaked[0]}; take the --split, --split-seed, --fold or --split-file of its run"
        )


@contextmanager
def _open_folder(plan: TrainingPlan, split: Split, preparation: Preparation) -> Iterator[RunFolder | None]:
    """The run folder, in the first process, with all that is known before the training."""
    if not plan.processes.is_first:
        plan.processes.barrier()
        yield None
        return
    with RunFolder.open(plan.output, resume=plan.config.record.resume == "auto") as folder:
        # Another process may have been here since the plan was made.
        refuse_other_settings(plan.config, plan.output)
        if folder.old_config is not None:
            _refuse_other_split(folder, split)
        folder.write_json(ENVIRONMENT_FILE, {**describe_environment(plan.device), **_describe_computation(plan)})
        folder.write_json("dataset.json", plan.dataset.to_json())
        folder.write_json("split.json", vars(split))
        if preparation.left_out:
            folder.write_json("left_out.json", [fault.to_json() for fault in preparation.left_out])
        # Last: a folder that has it can be gone on with.
        folder.write_json("config.json", plan.config.to_json())
        plan.processes.barrier()
        yield folder


def _describe_computation(plan: TrainingPlan) -> dict[str, object]:
    """What holds in this process, as JSON values."""
    return {
        "precision_asked_for": plan.config.training.precision,
        "precision": plan.computation.precision,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
    }


def _refuse_other_split(folder: RunFolder, split: Split) -> None:
    before = folder.read_json("split.json")
    different = [part for part in ("train", "validation", "test") if before.get(part) != list(getattr(split, part))]
    if different:
        raise UserError(
            f"--data-root: the {', '.join(different)} subjects are not those of the run in {folder.path}, as its "
            "split.json has them; give it the same data, or another --output"
        )


def _batches(plan: TrainingPlan, subjects: Sequence[PreparedSubject]) -> TrainingBatches:
    data, seed = plan.config.data, plan.config.run.seed
    length = plan.batch_plan.batch_size * plan.batch_plan.steps
    crops = TrainingCrops(subjects, data.crop, length, seed, data.tumour_share)
    return TrainingBatches(
        crops,
        plan.batch_plan,
        seed,
        subset_draw=plan.config.training.subset_draw,
        workers=data.workers,
        pin_memory=plan.device.type == "cuda",
    )


def _load_state(
    plan: TrainingPlan, network: SegmentationNetwork, batches: TrainingBatches, origin: LoadedWeights | None
) -> tuple[TrainingState, dict[str, Any] | None]:
    """As the newest checkpoint left it, or at the start; and what the checkpoint has for the recorder."""
    options = plan.config.training
    if options.channels_last:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    average = None if options.ema is None else WeightAverage(network, options.ema)
    state = TrainingState(network, plan.batch_plan.steps, average, gathered=Gathered(plan.processes))
    before = frozenset() if origin is None else origin.training_subjects or frozenset({UNNAMED_SUBJECTS})
    content = plan.checkpoints.newest(lambda message: print(message, flush=True))
    progress: dict[str, Any] | None = None
    if content is not None:
        try:
            state.load_state_dict(content)
            progress = content["progress"]
            before = frozenset(progress["training_subjects"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{plan.checkpoints.folder}: does not fit the run: {error}") from error
        print(f"Going on after step {state.step} of the run in {plan.output}", flush=True)
        if progress["precision"] != plan.computation.precision:
            print(f"Until now it computed in {progress['precision']}: the --device is another", flush=True)
    state.training_subjects = before | {subject.name for subject in batches.crops.subjects}
    # Nobody writes a checkpoint before all have read this one.
    _refuse_different_steps(plan, state.step)
    return state, progress


def _refuse_different_steps(plan: TrainingPlan, step: int) -> None:
    steps = plan.processes.gather(step)
    if len(set(steps)) > 1:
        raise UserError(
            f"--output: the processes found checkpoints of different steps, {', '.join(map(str, steps))}; "
            f"{plan.output} has to lie on a file system that all of them share"
        )


def _train(
    plan: TrainingPlan,
    state: TrainingState,
    progress: dict[str, Any] | None,
    batches: TrainingBatches,
    validation: ValidationSubjects,
    folder: RunFolder | None,
) -> SegmentationNetwork:
    """Train all stages, or what is left of them.

    Returns:
        The network to be evaluated.

    Raises:
        UserError: the numbers went bad.
        Interrupted: a signal came; the run is saved.
    """
    with Interruption() as interruption, Recorder(plan, batches, validation, folder, interruption) as recorder:
        recorder.begin(state, progress)
        train(plan, state, batches, recorder)
    # One that came after the last step; the others have to know, or they would wait for this process.
    if plan.processes.any(interruption.signal is not None):
        raise Interrupted(interruption.signal or signal.SIGTERM)
    return state.evaluated
