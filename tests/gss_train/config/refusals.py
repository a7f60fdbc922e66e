"""What is said where a command line is refused."""

from __future__ import annotations

import pytest

from gss_train.common import UserError
from gss_train.config import parse_config


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message for arguments that `parse_config` refuses."""
    with pytest.raises((UserError, SystemExit)) as refused:
        parse_config(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    if isinstance(refused.value, UserError):
        assert err == ""
        return str(refused.value)
    assert refused.value.args == (2,)
    # tyro's message comes in a box, broken into lines anywhere.
    return " ".join(err.replace("│", " ").split())
