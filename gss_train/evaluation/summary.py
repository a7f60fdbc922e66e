"""What people read of an evaluation: Dice by subset, how it came about, and published averages beside it."""

from __future__ import annotations

from gss_train.data import REGIONS, describe_split
from gss_train.evaluation.metrics import MEASURES, SCORES
from gss_train.evaluation.published import comparable_split, published_caveat, published_scores
from gss_train.evaluation.subset_scores import Evaluation
from gss_train.evaluation.tables import Table, dice_markdown

POST_PROCESSED = "in ET post-processed a predicted ET of fewer than 500 voxels is removed"
PUBLISHED_ET = "Differences: own minus published, in points, of ET as predicted; a published ET is as its paper has it"
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
    show = MEASURES["dice"].show
    own = evaluation.scores.overall.tolist()
    rows: list[list[str | float]] = [[f"{evaluation.name} (own)", *own, ""]]
    for score in published_scores(evaluation.dataset.name):
        pairs = zip(score.dice, own[: len(REGIONS)], strict=True)
        digits = score.digits
        cells = [f"{show(value, digits)} ({show(mine - value, digits, signed=True)})" for value, mine in pairs]
        rows.append([score.network, *cells, "", score.source])
    table = Table(("mean of 15 subsets", *SCORES, "source"), rows).to_markdown("dice", (":---", *["---:"] * 4, ":---"))
    remarks = f"{PUBLISHED_ET}. {published_caveat(evaluation.dataset.name)}".rstrip()
    return f"{lines}\nDice (%) beside published averages, {split.title}:\n\n{table}\n{remarks}\n"


def summary_markdown(evaluation: Evaluation) -> str:
    """Mean Dice by subset, and how it came about."""
    return f"{dice_markdown(evaluation.scores)}\n{origin_markdown(evaluation)}"
