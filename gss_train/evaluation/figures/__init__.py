"""Figures of scores for papers: PNG and SVG."""

from gss_train.evaluation.figures.bars import save_bars
from gss_train.evaluation.figures.everything import save_evaluation_figures
from gss_train.evaluation.figures.heat_map import save_heat_map
from gss_train.evaluation.figures.panels import save_panels

__all__ = ["save_bars", "save_evaluation_figures", "save_heat_map", "save_panels"]
