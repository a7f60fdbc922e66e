"""The vote: modalities are heard one after the other, each category keeps count.

A count has one entry per category of everything the routes need: the minimum over all modalities, the leaders' highest
and lowest student, whether some and whether all leaders are confident, the members' sum and whether all are confident.
So no modality's probabilities outlive its turn. Logarithms are to base 2, as the hardware has them.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.runtime.jit import constexpr_function

from gss_kernels.triton.arithmetic import at_least, log2, reciprocal, rounded_product

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@constexpr_function
def leader_bits(leaders, c, M):
    """The leaders of category c as the lowest M bits."""
    return (leaders >> (c * M)) & ((1 << M) - 1)


@constexpr_function
def leads(leaders, m, c, M):
    """Whether modality m leads category c."""
    return bool(leader_bits(leaders, c, M) >> m & 1)


@constexpr_function
def first_of_its_kind(leaders, m, c, M):
    """Whether no modality before m is a leader as m is, or a member as m is, of category c."""
    earlier = range(m)
    return all(leads(leaders, i, c, M) != leads(leaders, m, c, M) for i in earlier)


@constexpr_function
def has_members(leaders, c, M):
    """Whether a modality does not lead category c."""
    return leader_bits(leaders, c, M) != (1 << M) - 1


@constexpr_function
def has_one_leader(leaders, c, M):
    """Whether exactly one modality leads category c."""
    return leader_bits(leaders, c, M).bit_count() == 1


@triton.jit
def softmaxes(logits, log2_scale, C: tl.constexpr, SQUARINGS: tl.constexpr, PTX: tl.constexpr):
    """Of one modality: q and log2 q, the sharp exponentials and their sum, per category.

    `log2_scale` is `log2(e) / T`. For T = 2**SQUARINGS the sharp exponential is a power of the tempered one, which
    spares half of the special-function instructions.
    """
    highest = logits[0]
    for c in tl.static_range(1, C):
        highest = tl.maximum(highest, logits[c])
    scaled = ()
    tempered = ()
    sharp = ()
    total = tl.zeros_like(highest)
    sharp_sum = tl.zeros_like(highest)
    for c in tl.static_range(C):
        # Not one multiply-add with `highest * log2_scale`: its rounding would matter for huge logits.
        shifted = logits[c] - highest
        exponent = shifted * log2_scale
        value = tl.exp2(exponent)
        if SQUARINGS > 0:
            power = value
            for _ in tl.static_range(SQUARINGS):
                power = power * power
        else:
            power = tl.exp2(shifted * _LOG2_E)
        scaled = scaled + (exponent,)
        tempered = tempered + (value,)
        sharp = sharp + (power,)
        total += value
        sharp_sum += power
    inverse = reciprocal(total, PTX)
    total_log = log2(total, PTX)
    student = ()
    student_log = ()
    for c in tl.static_range(C):
        # With and without missing modalities, other code follows: the same bits need the same rounding.
        student = student + (rounded_product(tempered[c], inverse, PTX),)
        student_log = student_log + (scaled[c] - total_log,)
    return student, student_log, sharp, sharp_sum


@triton.jit
def open_count(like, C: tl.constexpr):
    """The count before any modality was heard: minimum, highest, lowest, some, leaders, members, members' sum."""
    return ((like,) * C, (like,) * C, (like,) * C, (like > 0,) * C, (like > 0,) * C, (like > 0,) * C, (like,) * C)


@triton.jit
def hear_modality(
    count,
    student,
    sharp,
    sharp_sum,
    present,
    leader_threshold,
    member_threshold,
    m: tl.constexpr,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
):
    """The count after modality m. Bit `c * M + m` of LEADERS says that m leads c."""
    minimum, highest, lowest, some_leader, all_leaders, all_members, members_sum = count
    new_minimum = ()
    new_highest = ()
    new_lowest = ()
    new_some = ()
    new_all = ()
    new_members = ()
    new_sum = ()
    leader_bar = leader_threshold * sharp_sum
    all_leaders_bar = leader_bar
    member_bar = member_threshold * sharp_sum
    if HAS_AVAILABLE:
        # Numbers of the sample, not selections per voxel: they leave an absent modality, whose logits are 0, without
        # effect, and a present one as it is, to the bit, a NaN too.
        lift = tl.where(present, 0.0, float("inf"))
        weight = tl.where(present, 1.0, 0.0)
        leader_bar = leader_threshold * (sharp_sum + lift)
        all_leaders_bar = leader_threshold * (sharp_sum * weight)
        member_bar = member_threshold * (sharp_sum * weight)
    for c in tl.static_range(C):
        q = student[c]
        least = q
        most = q
        if HAS_AVAILABLE:
            least = q + lift
            most = q * weight
        new_minimum = new_minimum + (least if m == 0 else tl.minimum(minimum[c], least),)
        if leads(LEADERS, m, c, M):
            confident = sharp[c] > leader_bar
            all_confident = sharp[c] > all_leaders_bar
            new_highest = new_highest + (most if first_of_its_kind(LEADERS, m, c, M) else tl.maximum(highest[c], most),)
            new_lowest = new_lowest + (least if first_of_its_kind(LEADERS, m, c, M) else tl.minimum(lowest[c], least),)
            new_some = new_some + (confident if first_of_its_kind(LEADERS, m, c, M) else some_leader[c] | confident,)
            new_all = new_all + (
                all_confident if first_of_its_kind(LEADERS, m, c, M) else all_leaders[c] & all_confident,
            )
            new_members = new_members + (all_members[c],)
            new_sum = new_sum + (members_sum[c],)
        else:
            confident = sharp[c] > member_bar
            new_highest = new_highest + (highest[c],)
            new_lowest = new_lowest + (lowest[c],)
            new_some = new_some + (some_leader[c],)
            new_all = new_all + (all_leaders[c],)
            new_members = new_members + (
                confident if first_of_its_kind(LEADERS, m, c, M) else all_members[c] & confident,
            )
            new_sum = new_sum + (most if first_of_its_kind(LEADERS, m, c, M) else members_sum[c] + most,)
    return new_minimum, new_highest, new_lowest, new_some, new_all, new_members, new_sum


@triton.jit
def count_present(present, c: tl.constexpr, M: tl.constexpr, LEADERS: tl.constexpr, HAS_AVAILABLE: tl.constexpr):
    """How many leaders and how many members of category c the sample has."""
    num_leaders = 0
    num_members = 0
    for m in tl.static_range(M):
        one = 1
        if HAS_AVAILABLE:
            one = present[m].to(tl.int32)
        if leads(LEADERS, m, c, M):
            num_leaders += one
        else:
            num_members += one
    return num_leaders, num_members


@triton.jit
def close_count(
    count,
    present,
    leader_blend,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    PTX: tl.constexpr,
):
    """The target t, and per category the routes: leaders agree, some leader is confident, members decide."""
    minimum, highest, lowest, some_leader, all_leaders, all_members, members_sum = count
    votes = ()
    routes = ()
    total = tl.zeros_like(minimum[0])
    for c in tl.static_range(C):
        num_leaders, num_members = count_present(present, c, M, LEADERS, HAS_AVAILABLE)
        vote = minimum[c]
        members = some_leader[c] & (some_leader[c] == 0)
        if has_members(LEADERS, c, M):
            # A table of constants and not a division, so that a full `available` gives the same bits as none.
            inverse = 0.0
            for number in tl.static_range(1, M):
                inverse = tl.where(num_members == number, 1.0 / number, inverse)
            mean = members_sum[c] * inverse
            if RELEASED:
                mean = tl.where(num_leaders == 1, 0.0, mean)
            members = all_members[c] & (num_members > 0)
            vote = tl.where(members, mean, vote)
        agree = some_leader[c]
        if has_one_leader(LEADERS, c, M):
            vote = tl.where(agree, highest[c], vote)
        else:
            blend = highest[c] - leader_blend * (highest[c] - lowest[c])
            agreed = highest[c]
            if RELEASED:
                agreed = tl.where(num_leaders >= 2, highest[c] + blend, agreed)
            agree = some_leader[c] & all_leaders[c]
            vote = tl.where(some_leader[c], blend, vote)
            vote = tl.where(agree, agreed, vote)
        votes = votes + (vote,)
        routes = routes + ((agree, some_leader[c], members),)
        total += vote
    # A sum of denormal numbers counts as 0, as its reciprocal would overflow. NaN counts as 0, too: a masked modality's
    # must not reach the others.
    inverse = tl.where(total > 1e-37, reciprocal(total, PTX), 0.0)
    target = ()
    for c in tl.static_range(C):
        target = target + (at_least(votes[c] * inverse, 0.0),)
    return target, routes
