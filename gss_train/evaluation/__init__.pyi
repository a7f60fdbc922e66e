from gss_train.evaluation.evaluating import parse_arguments, run
from gss_train.evaluation.files import (
    Evaluation,
    SegmentedSubject,
    read_evaluation,
    read_segmented,
    write_evaluation,
    write_segmented,
)
from gss_train.evaluation.intervals import bootstrap_interval, interval_of, with_mean_over_subsets
from gss_train.evaluation.metrics import MEASURES
from gss_train.evaluation.paper_tables import TITLES
from gss_train.evaluation.scoring import evaluate_subsets, read_subject
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.evaluation.tables import csv_table, markdown_table

__all__ = [
    "MEASURES",
    "TITLES",
    "Evaluation",
    "SegmentedSubject",
    "SubsetScores",
    "bootstrap_interval",
    "csv_table",
    "evaluate_subsets",
    "interval_of",
    "markdown_table",
    "parse_arguments",
    "read_evaluation",
    "read_segmented",
    "read_subject",
    "run",
    "with_mean_over_subsets",
    "write_evaluation",
    "write_segmented",
]
