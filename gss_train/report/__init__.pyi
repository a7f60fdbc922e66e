from gss_train.report.figures.evaluation import save_evaluation_figures
from gss_train.report.figures.run import save_epoch_figure, save_summary
from gss_train.report.page import write_report

__all__ = ["save_epoch_figure", "save_evaluation_figures", "save_summary", "write_report"]
