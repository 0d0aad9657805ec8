"""Analyses runs from their files: learning curves, milestones, plots, the report."""
