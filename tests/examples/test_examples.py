"""The examples do what they say."""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 12


def load(name: str) -> Any:
    """An example as a module, without running it."""
    if name == "monai_loop":
        pytest.importorskip("monai")
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["plain_pytorch", "monai_loop", "network_of_probabilities"])
def example(request: pytest.FixtureRequest) -> Any:
    return load(request.param)


@pytest.fixture(scope="module")
def history(example: Any) -> Any:
    return example.main(steps=STEPS)


def test_loss_falls(history: Any) -> None:
    assert len(history) == STEPS
    assert sum(step.total for step in history[-3:]) < 0.9 * sum(step.total for step in history[:3])


def test_gss_is_part_of_the_loss(example: Any, history: Any) -> None:
    assert pytest.approx(0.3 * 8**2 / 10) == example.GSS_WEIGHT
    for step in history:
        assert step.gss > 0
        assert step.total == pytest.approx(step.supervised + example.GSS_WEIGHT * step.gss, rel=1e-5)


def test_gss_moves_the_network(example: Any, history: Any) -> None:
    """Without it the first step sees the same network and data, the second one another network."""
    without = example.main(steps=2, gss_weight=0.0)
    assert without[0].supervised == history[0].supervised
    assert without[1].supervised != history[1].supervised


@pytest.mark.parametrize("page", ["README.md", "docs/kernels.md"])
def test_code_on_a_page_runs(page: str, tmp_path: Path) -> None:
    text = (EXAMPLES.parent / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        script = tmp_path / "block.py"
        script.write_text(block, encoding="utf-8")
        names = runpy.run_path(str(script))
        assert any(isinstance(value, Tensor) and value.grad_fn is not None for value in names.values())


def test_no_two_commands_of_the_readme_write_to_one_place() -> None:
    """Whoever runs one after the other would be refused."""
    commands = re.findall(
        r"^ {4}\S*python3? .*", (EXAMPLES.parent / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    outputs = [place for command in commands for place in re.findall(r"--(?:out|output|figures|export) (\S+)", command)]
    assert len(outputs) >= 4
    assert len(set(outputs)) == len(outputs)
