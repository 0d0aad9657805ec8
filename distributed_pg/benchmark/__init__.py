"""Benchmarks: training against its references, learner saturation, memory."""
