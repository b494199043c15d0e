"""Figures and the HTML report, from results on disk only."""
