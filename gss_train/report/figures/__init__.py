"""Figures: of a run while it trains and at its end, and of scores for papers."""
