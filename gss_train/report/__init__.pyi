from gss_train.report.figures.evaluation import save_evaluation_figures as save_evaluation_figures
from gss_train.report.figures.run import save_epoch_figure as save_epoch_figure, save_summary as save_summary
from gss_train.report.page import write_report as write_report
