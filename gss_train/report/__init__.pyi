from gss_train.report.command_line import parse_arguments, run
from gss_train.report.figures.bars import save_bars
from gss_train.report.figures.epoch import save_epoch_figure
from gss_train.report.figures.everything import save_evaluation_figures
from gss_train.report.figures.heat_map import save_heat_map
from gss_train.report.figures.prediction_panels import save_panels
from gss_train.report.figures.summary import save_summary
from gss_train.report.page import write_report

__all__ = [
    "parse_arguments",
    "run",
    "save_bars",
    "save_epoch_figure",
    "save_evaluation_figures",
    "save_heat_map",
    "save_panels",
    "save_summary",
    "write_report",
]
