"""One page that compares runs, to be opened from disk."""

from gss_train.report.page import write_report

__all__ = ["write_report"]
