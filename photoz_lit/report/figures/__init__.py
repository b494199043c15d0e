"""Every figure of the package, one function each: plain arrays in, a Matplotlib figure out."""

from photoz_lit.report.figures.calibrated import BeforeAfter, figure_calibrated
from photoz_lit.report.figures.comparison import (
    Score,
    Standing,
    figure_biases,
    figure_pareto,
    non_dominated,
)
from photoz_lit.report.figures.labels import figure_counts, figure_dispersions, figure_labels, figure_shift
from photoz_lit.report.figures.residuals import Curve, figure_residual_panels, figure_residuals
from photoz_lit.report.figures.results import (
    MagnitudeCurve,
    Sample,
    TradeOff,
    figure_density,
    figure_n_of_z,
    figure_pit,
    figure_sigma_mad,
    figure_trade_off,
)
from photoz_lit.report.figures.style import as_svg
from photoz_lit.report.figures.sweep import SweepAxis, SweepLine, figure_sweep

__all__ = [
    "BeforeAfter",
    "Curve",
    "MagnitudeCurve",
    "Sample",
    "Score",
    "Standing",
    "SweepAxis",
    "SweepLine",
    "TradeOff",
    "as_svg",
    "figure_biases",
    "figure_calibrated",
    "figure_counts",
    "figure_density",
    "figure_dispersions",
    "figure_labels",
    "figure_n_of_z",
    "figure_pareto",
    "figure_pit",
    "figure_residual_panels",
    "figure_residuals",
    "figure_shift",
    "figure_sigma_mad",
    "figure_sweep",
    "figure_trade_off",
    "non_dominated",
]
