"""A small greedy all-pairs algorithm: few rows of options in which every two values of two options meet."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Options = Mapping[str, Sequence[Any]]
Pair = frozenset[tuple[str, Any]]

_CANDIDATES = 12


def pairs_of(row: Row) -> set[Pair]:
    """The pairs of values that meet in a row."""
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def all_pairs(options: Options) -> list[Pair]:
    """Every pair of values of two different options."""
    return [
        frozenset({(one, first), (other, second)})
        for one, other in itertools.combinations(options, 2)
        for first, second in itertools.product(options[one], options[other])
    ]


def covering_rows(options: Options, given: Iterable[Row] = (), seed: int = 0) -> list[Row]:
    """Rows that, with those given, hold every pair; the same on every call with this seed.

    Every row starts from a pair that is still open and takes, option by option in random order, the value that closes
    most pairs with what the row has; the best of several such rows is kept.
    """
    rng = random.Random(seed)
    missing = set(all_pairs(options)).difference(*map(pairs_of, given))
    rows = []
    for start in all_pairs(options):
        if start in missing:
            candidates = [_grow(options, dict(start), missing, rng) for _ in range(_CANDIDATES)]
            rows.append(max(candidates, key=lambda row: len(missing & pairs_of(row))))
            missing -= pairs_of(rows[-1])
    return rows


def _grow(options: Options, row: Row, missing: set[Pair], rng: random.Random) -> Row:
    """The row with a value for every option."""
    names = [name for name in options if name not in row]
    for name in rng.sample(names, len(names)):
        gains = {
            value: sum(frozenset({there, (name, value)}) in missing for there in row.items()) for value in options[name]
        }
        best = [value for value, gain in gains.items() if gain == max(gains.values())]
        row[name] = rng.choice(best)
    return row
