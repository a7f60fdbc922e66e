from gss_train.evaluation.folder import (
    SegmentedSubject as SegmentedSubject,
    is_evaluation as is_evaluation,
    read_evaluation as read_evaluation,
    read_segmented as read_segmented,
    refuse_taken as refuse_taken,
    write_evaluation as write_evaluation,
)
from gss_train.evaluation.intervals import bootstrap_interval as bootstrap_interval, interval_of as interval_of
from gss_train.evaluation.job import Job as Job, evaluate_job as evaluate_job
from gss_train.evaluation.metrics import (
    MEASURES as MEASURES,
    region_dice as region_dice,
    region_measures as region_measures,
)
from gss_train.evaluation.published import (
    comparable_split as comparable_split,
    published_remark as published_remark,
    published_rows as published_rows,
    published_scores as published_scores,
    split_settings as split_settings,
)
from gss_train.evaluation.scoring import evaluate_subsets as evaluate_subsets, read_subject as read_subject
from gss_train.evaluation.subjects import (
    EvaluationData as EvaluationData,
    choose_data as choose_data,
    find_part as find_part,
    refuse_training_subjects as refuse_training_subjects,
)
from gss_train.evaluation.subset_scores import (
    Evaluation as Evaluation,
    SubsetScores as SubsetScores,
    with_mean_over_subsets as with_mean_over_subsets,
)
from gss_train.evaluation.summary import (
    describe_origin as describe_origin,
    summary_markdown as summary_markdown,
    weights_markdown as weights_markdown,
)
from gss_train.evaluation.tables import dice_csv as dice_csv
