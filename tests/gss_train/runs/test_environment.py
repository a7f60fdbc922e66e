from __future__ import annotations

import json
import platform

import pytest
import torch

from gss_train.runs.environment import describe_environment


def test_the_environment_names_what_decides_numbers() -> None:
    environment = json.loads(json.dumps(describe_environment(torch.device("cpu"))))
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["packages"]["gss"]
    assert "tensorboard" in environment["packages"]
    assert environment["python"] == platform.python_version()
    assert environment["device"] == "cpu"
    assert environment["gpu"] is None
    assert environment["threads"] == torch.get_num_threads()
    assert environment["processors"] >= 1


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gss_train.runs.environment._PACKAGES", ("torch", "no-such-package"))
    assert describe_environment(torch.device("cpu"))["packages"] == {
        "torch": torch.__version__,
        "no-such-package": None,
    }
