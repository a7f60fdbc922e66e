"""The fused losses in the forms that are benchmarked, and the processes that compile them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.compiling import compile_all, forms
from benchmarks.lines import Lines, of_kind, read
from benchmarks.loss_forms import LOSSES, LossForm, LossName

CPU = torch.device("cpu")


@pytest.mark.parametrize("loss", LOSSES)
def test_training_form_is_the_same_loss_of_separate_tensors(loss: LossName) -> None:
    steps = [LossForm(loss, 4, "float32", 8, training).step(CPU, "cpu") for training in (True, False)]
    (value, leaves), (want, leaf) = (step.forward() for step in steps)
    assert torch.equal(value, want)
    (want_gradient,) = torch.autograd.grad(want, leaf)
    gradients = torch.autograd.grad(value, leaves)
    assert len(gradients) == (1 if loss == "segmentation" else 4)
    got = gradients[0] if loss == "segmentation" else torch.stack(gradients, dim=1)
    torch.testing.assert_close(got, want_gradient, rtol=0, atol=0)


def test_step_counts_the_bytes_of_all_modalities() -> None:
    step = LossForm("objective", 4, "float32", 8).step(CPU, "cpu")
    step()
    logits, labels = 2 * 4 * 4 * 8**3 * 4, 2 * 8**3
    assert step.gradient_bytes == logits
    assert step.floor == (logits + labels, 2 * logits + labels)


def job(form: LossForm) -> list[str]:
    if form.categories == 5:
        raise ValueError("planted")
    return ["made_up_kernel"]


def test_form_that_does_not_compile_leaves_the_others_alone(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "run.jsonl")
    some = [form for form in forms() if form.dtype == "float32" and form.training]
    assert not compile_all(some, job, lines, processes=1)
    records = read(lines.path)
    assert len(of_kind(records, "compiled")) == len(of_kind(records, "failed")) == len(LOSSES)
    assert all(record["error"] == "ValueError: planted" for record in of_kind(records, "failed"))
    assert all(record["kernels"] == ["made_up_kernel"] for record in of_kind(records, "compiled"))


def test_what_is_benchmarked_first_is_compiled_first() -> None:
    assert forms()[0] == LossForm("gss", 4, "float32", 80)
    assert len(set(forms())) == len(forms()) == 24
