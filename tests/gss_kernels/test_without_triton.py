"""macOS and Windows have no Triton."""

from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
import sys
sys.modules["triton"] = None
import torch
from gss_kernels import BRATS_2018, GSSLoss, fused_gss_loss, gss_soft_targets
logits = torch.arange(2 * 4 * 4 * 9.0).sin().mul(5).reshape(2, 4, 4, 9).requires_grad_()
losses = [fused_gss_loss(logits, BRATS_2018, seed=0, backend=name) for name in ("auto", "cpu", "reference")]
torch.testing.assert_close(losses[0], losses[2])
losses[0].backward()
assert logits.grad.any()
gss_soft_targets(logits, BRATS_2018)
assert not [name for name in sys.modules if name.startswith(("triton.", "gss_kernels.triton"))]
for call in (fused_gss_loss, gss_soft_targets, lambda z, groups, backend: GSSLoss(groups, backend=backend)(z)):
    try:
        call(logits, BRATS_2018, backend="triton")
    except RuntimeError as error:
        assert "triton, which is not installed" in str(error), error
    else:
        raise AssertionError("no error")
print("done")
"""


def test_everything_else_works() -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", _SCRIPT],
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "done"


def test_importing_the_package_does_not_import_triton() -> None:
    """The import stays fast, and the interpreter can still be chosen after it."""
    script = """
import sys, torch
before = set(sys.modules)
import gss_kernels
print("triton.language" in set(sys.modules) - before)
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"
