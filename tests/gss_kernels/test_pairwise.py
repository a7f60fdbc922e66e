"""The cases of the table: few, and any two options meet in one of them."""

from __future__ import annotations

import itertools
import math

import numpy as np

from tests.gss_kernels.cases import OPTIONS, TABLE, Case, options_of, pairwise_cases, problem, special_cases
from tests.gss_kernels.oracle import softmax, vote
from tests.gss_kernels.pairwise import all_pairs, covering_rows, pairs_of


def test_every_two_options_meet_in_a_case() -> None:
    met = set().union(*(pairs_of(options_of(case)) for case in TABLE.values()))
    assert met.issuperset(all_pairs(OPTIONS))


def test_table_is_small_enough_for_the_interpreter() -> None:
    assert len(TABLE) == len(special_cases()) + len(pairwise_cases()) <= 60
    assert all(math.prod(case.spatial) <= 40 for case in pairwise_cases())


def test_cases_are_the_same_on_every_call() -> None:
    assert pairwise_cases() == pairwise_cases()


def test_every_route_of_the_vote_is_taken_by_every_number_of_modalities() -> None:
    """Otherwise agreement with the oracle would say little."""
    taken = {(case.modalities, route) for case in pairwise_cases() for route in routes(case)}
    assert taken == set(itertools.product(range(2, 7), ("agree", "split", "members", "minimum")))


def routes(case: Case) -> set[str]:
    data = problem(case)
    logits = data.logits.reshape(*data.logits.shape[:3], -1)
    found = set()
    for b, v in np.ndindex(case.batch, logits.shape[3]):
        rows = {m: logits[b, m, :, v].tolist() for m in range(case.modalities) if not np.isnan(logits[b, m]).any()}
        sharp, tempered = (
            {m: softmax(row, temperature) for m, row in rows.items()}
            for temperature in (1.0, case.settings.temperature)
        )
        for c, leading in enumerate(case.leaders):
            p, q = ({m: values[c] for m, values in table.items()} for table in (sharp, tempered))
            found |= {vote(p, q, leading, case.settings)[0]} if len(rows) >= 2 else set()
    return found


def test_rows_given_are_not_repeated() -> None:
    options = {"colour": ("red", "green", "blue"), "size": (1, 2, 3), "full": (False, True)}
    rows = covering_rows(options)
    assert set().union(*map(pairs_of, rows)) == set(all_pairs(options))
    assert len(rows) <= 11
    assert covering_rows(options, rows[:4]) != []
    assert covering_rows(options, rows) == []
