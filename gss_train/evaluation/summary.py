"""What people read of an evaluation: Dice by subset, how it came about, and published averages beside it."""

from __future__ import annotations

from collections.abc import Mapping

from gss_train.data import describe_split
from gss_train.evaluation.metrics import SCORES
from gss_train.evaluation.published import comparable_split, published_remark, published_rows
from gss_train.evaluation.subset_scores import Evaluation
from gss_train.evaluation.tables import Table, dice_markdown

POST_PROCESSED = "in ET post-processed a predicted ET of fewer than 500 voxels is removed"
_WEIGHTS = {"last": "last, after the last step", "best": "best, of the best validation"}


def describe_origin(evaluation: Evaluation) -> dict[str, str]:
    """How the scores came about, as far as the evaluation says it, by what is told."""
    settings, scores = evaluation.settings, evaluation.scores
    told = {"Subjects": f"{len(scores.subjects)} ({settings.get('part', 'test')})"}
    if "split" in settings:
        told["Split"] = describe_split(evaluation.dataset.name, settings["split"])
    if "weights" in settings:
        told["Weights"] = _WEIGHTS.get(settings["weights"], settings["weights"])
    if "precision" in settings:
        told["Computed in"] = settings["precision"]
    told["ET"] = f"as predicted; {POST_PROCESSED}" if SCORES[-1] in scores.names else "as predicted"
    return told


def origin_markdown(evaluation: Evaluation) -> str:
    """How the scores came about, as a list, and where they are comparable the published averages beside their means."""
    lines = "".join(f"- {name}: {text}\n" for name, text in describe_origin(evaluation).items())
    split = comparable_split(evaluation)
    if split is None:
        return lines
    own = evaluation.scores.overall.tolist()
    rows: list[list[str | float]] = [[f"{evaluation.name} (own)", *own, ""]]
    for row in published_rows(evaluation.dataset.name, own):
        cells = [f"{published} ({difference})" for published, difference in row.cells]
        rows.append([row.network, *cells, "", row.source])
    table = Table(("mean of 15 subsets", *SCORES, "source"), rows).to_markdown("dice", (":---", *["---:"] * 4, ":---"))
    remark = published_remark(evaluation)
    return f"{lines}\nDice (%) beside published averages, {split.title}:\n\n{table}\n{remark}\n"


def weights_markdown(evaluations: Mapping[str, Evaluation]) -> str:
    """Dice of several weights of a run on the same subjects: a row for each, by the name that is given."""
    first = next(iter(evaluations.values())).scores
    columns = [f"{name}, {of}" for of in ("mean of 15 subsets", "all modalities") for name in first.names]
    rows = [
        [name, *evaluation.scores.overall.tolist(), *evaluation.scores.mean[-1].tolist()]
        for name, evaluation in evaluations.items()
    ]
    table = Table(("weights", *columns), rows).to_markdown("dice", (":---", *["---:"] * len(columns)))
    return f"Dice in per cent on {len(first.subjects)} subjects:\n\n{table}"


def summary_markdown(evaluation: Evaluation) -> str:
    """Mean Dice by subset, and how it came about."""
    return f"{dice_markdown(evaluation.scores)}\n{origin_markdown(evaluation)}"
