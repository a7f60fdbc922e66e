"""How fast a training is said to go, and how long the rest is said to take."""

from __future__ import annotations

import pytest

from benchmarks.simulated_time import SimulatedTime
from gss_train.training.pace import Pace


class Training:
    """Steps and interludes that take what they are told to."""

    def __init__(self) -> None:
        self.time = SimulatedTime()
        self.pace = Pace(self.time.clock)

    def steps(self, count: int, seconds: float) -> None:
        """Ten at a time are waited for."""
        for number in range(1, count + 1):
            self.time.pass_by(seconds)
            self.pace.steps += 1
            if number % 10 == 0:
                self.pace.remember()

    def validate(self, seconds: float) -> None:
        with self.pace.interlude("validation"):
            self.time.pass_by(seconds)


@pytest.fixture
def training() -> Training:
    return Training()


def test_nothing_is_said_before_some_steps(training: Training) -> None:
    training.steps(19, 1)
    assert training.pace.seconds_per_step is None
    assert training.pace.seconds_left(100, {}) is None


def test_the_first_steps_which_prepare_the_device_do_not_count(training: Training) -> None:
    training.steps(10, 30)
    training.steps(40, 0.5)
    assert training.pace.seconds_per_step == pytest.approx(0.5)
    assert training.pace.seconds_left(1000, {}) == pytest.approx(500)


def test_what_steps_wait_for_is_no_part_of_them_but_of_the_time_left(training: Training) -> None:
    training.steps(50, 1)
    for seconds in (10, 20):
        training.validate(seconds)
        training.steps(50, 1)
    assert training.pace.seconds_per_step == pytest.approx(1)
    assert training.pace.seconds_left(100, {"validation": 2, "figure": 5}) == pytest.approx(100 + 2 * 15)
    assert training.pace.seconds == pytest.approx(180)


def test_the_speed_is_that_of_the_last_hour(training: Training) -> None:
    training.steps(3600, 1)
    training.steps(2000, 2)
    assert training.pace.seconds_per_step == pytest.approx(2, rel=0.01)


def test_one_step_of_hours_has_a_speed(training: Training) -> None:
    training.steps(40, 1800)
    assert training.pace.seconds_per_step == pytest.approx(1800)


def test_another_stage_has_another_speed(training: Training) -> None:
    training.steps(100, 1)
    training.pace.forget()
    assert training.pace.seconds_per_step is None
    training.steps(20, 3)
    assert training.pace.seconds_per_step == pytest.approx(3)


def test_steps_since_a_moment(training: Training) -> None:
    training.steps(10, 1)
    mark = training.pace.mark()
    training.validate(100)
    training.steps(10, 0.25)
    assert training.pace.steps_per_second(mark) == pytest.approx(4)
