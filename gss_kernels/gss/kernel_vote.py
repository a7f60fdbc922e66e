"""The vote: modalities are heard one after the other, each category keeps count.

A count has one entry per category of everything the routes need: the minimum over all modalities, the leaders' highest
and lowest student, whether some and whether all leaders are confident, the members' sum and whether all are confident.
So no modality's probabilities outlive its turn. Logarithms are to base 2, as the hardware has them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from triton.runtime.jit import constexpr_function

from gss_kernels.triton.arithmetic import at_least, reciprocal


@constexpr_function
def leads(leaders, m, c):
    """Whether modality m leads category c."""
    return m in leaders[c]


@constexpr_function
def first_of_its_kind(leaders, m, c):
    """Whether no modality before m is a leader as m is, or a member as m is, of category c."""
    return all((i in leaders[c]) != (m in leaders[c]) for i in range(m))


@constexpr_function
def num_leaders_of(leaders, c):
    """How many modalities lead category c."""
    return len(leaders[c])


class Count(NamedTuple):
    """What has been heard so far, an entry for each category."""

    minimum: Any
    highest: Any
    lowest: Any
    some_leader: Any
    all_leaders: Any
    all_members: Any
    members_sum: Any


@triton.jit
def open_count(like, C: tl.constexpr):
    """The count before any modality was heard."""
    return Count((like,) * C, (like,) * C, (like,) * C, (like > 0,) * C, (like > 0,) * C, (like > 0,) * C, (like,) * C)


@triton.jit
def hear_modality(count, own, present, numbers, m: tl.constexpr, form: tl.constexpr):
    """The count after modality m."""
    C: tl.constexpr = form.C
    minimum = ()
    highest = ()
    lowest = ()
    some_leader = ()
    all_leaders = ()
    all_members = ()
    members_sum = ()
    leader_bar = numbers.leader_threshold * own.sharp_sum
    all_leaders_bar = leader_bar
    member_bar = numbers.member_threshold * own.sharp_sum
    if form.available:
        # Numbers of the sample, not selections per voxel: they leave an absent modality, whose logits are 0, without
        # effect, and a present one as it is, to the bit, a NaN too.
        lift = tl.where(present, 0.0, float("inf"))
        weight = tl.where(present, 1.0, 0.0)
        leader_bar = numbers.leader_threshold * (own.sharp_sum + lift)
        all_leaders_bar = numbers.leader_threshold * (own.sharp_sum * weight)
        member_bar = numbers.member_threshold * (own.sharp_sum * weight)
    for c in tl.static_range(C):
        first = first_of_its_kind(form.leaders, m, c)
        least = own.student[c]
        most = own.student[c]
        if form.available:
            least = least + lift
            most = most * weight
        minimum = minimum + (least if m == 0 else tl.minimum(count.minimum[c], least),)
        if leads(form.leaders, m, c):
            some = own.sharp[c] > leader_bar
            every = own.sharp[c] > all_leaders_bar
            highest = highest + (most if first else tl.maximum(count.highest[c], most),)
            lowest = lowest + (least if first else tl.minimum(count.lowest[c], least),)
            some_leader = some_leader + (some if first else count.some_leader[c] | some,)
            all_leaders = all_leaders + (every if first else count.all_leaders[c] & every,)
            all_members = all_members + (count.all_members[c],)
            members_sum = members_sum + (count.members_sum[c],)
        else:
            every = own.sharp[c] > member_bar
            highest = highest + (count.highest[c],)
            lowest = lowest + (count.lowest[c],)
            some_leader = some_leader + (count.some_leader[c],)
            all_leaders = all_leaders + (count.all_leaders[c],)
            all_members = all_members + (every if first else count.all_members[c] & every,)
            members_sum = members_sum + (most if first else count.members_sum[c] + most,)
    return Count(minimum, highest, lowest, some_leader, all_leaders, all_members, members_sum)


@triton.jit
def count_present(presence, c: tl.constexpr, form: tl.constexpr):
    """How many leaders and how many members of category c the sample has."""
    M: tl.constexpr = form.M
    num_leaders = 0
    num_members = 0
    for m in tl.static_range(M):
        one = 1
        if form.available:
            one = presence.of[m].to(tl.int32)
        if leads(form.leaders, m, c):
            num_leaders += one
        else:
            num_members += one
    return num_leaders, num_members


@triton.jit
def close_category(count, presence, leader_blend, c: tl.constexpr, form: tl.constexpr):
    """The vote s, and the routes: leaders agree, some leader is confident, members decide."""
    M: tl.constexpr = form.M
    num_leaders, num_members = count_present(presence, c, form)
    highest = count.highest[c]
    some_leader = count.some_leader[c]
    vote = count.minimum[c]
    members = some_leader & (some_leader == 0)
    if num_leaders_of(form.leaders, c) < M:
        # A table of constants and not a division, so that a full `available` gives the same bits as none.
        inverse = 0.0
        for number in tl.static_range(1, M):
            inverse = tl.where(num_members == number, 1.0 / number, inverse)
        mean = count.members_sum[c] * inverse
        if form.released:
            mean = tl.where(num_leaders == 1, 0.0, mean)
        members = count.all_members[c] & (num_members > 0)
        vote = tl.where(members, mean, vote)
    agree = some_leader
    if num_leaders_of(form.leaders, c) == 1:
        vote = tl.where(agree, highest, vote)
    else:
        blend = highest - leader_blend * (highest - count.lowest[c])
        agreed = highest
        if form.released:
            agreed = tl.where(num_leaders >= 2, highest + blend, agreed)
        agree = some_leader & count.all_leaders[c]
        vote = tl.where(some_leader, blend, vote)
        vote = tl.where(agree, agreed, vote)
    return vote, (agree, some_leader, members)


@triton.jit
def close_count(count, presence, leader_blend, form: tl.constexpr):
    """The target t, and every category's routes as of `close_category`."""
    C: tl.constexpr = form.C
    votes = ()
    routes = ()
    total = tl.zeros_like(count.minimum[0])
    for c in tl.static_range(C):
        vote, route = close_category(count, presence, leader_blend, c, form)
        votes = votes + (vote,)
        routes = routes + (route,)
        total += vote
    # A sum of denormal numbers counts as 0, as its reciprocal would overflow. NaN counts as 0, too: a masked modality's
    # must not reach the others.
    inverse = tl.where(total > 1e-37, reciprocal(total, form.ptx), 0.0)
    target = ()
    for c in tl.static_range(C):
        target = target + (at_least(votes[c] * inverse, 0.0),)
    return target, routes
