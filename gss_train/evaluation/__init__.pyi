from gss_train.evaluation.folder import (
    Evaluation,
    SegmentedSubject,
    is_evaluation,
    open_replacing_folder,
    read_evaluation,
    read_segmented,
    refuse_taken,
    write_evaluation,
    write_segmented,
)
from gss_train.evaluation.intervals import bootstrap_interval, interval_of
from gss_train.evaluation.metrics import MEASURES
from gss_train.evaluation.scoring import evaluate_subsets, read_subject
from gss_train.evaluation.subjects import choose_data, find_part, refuse_training_subjects
from gss_train.evaluation.subset_scores import SubsetScores, with_mean_over_subsets
from gss_train.evaluation.tables import dice_csv, dice_markdown

__all__ = [
    "MEASURES",
    "Evaluation",
    "SegmentedSubject",
    "SubsetScores",
    "bootstrap_interval",
    "choose_data",
    "dice_csv",
    "dice_markdown",
    "evaluate_subsets",
    "find_part",
    "interval_of",
    "is_evaluation",
    "open_replacing_folder",
    "read_evaluation",
    "read_segmented",
    "read_subject",
    "refuse_taken",
    "refuse_training_subjects",
    "with_mean_over_subsets",
    "write_evaluation",
    "write_segmented",
]
