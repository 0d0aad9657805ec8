"""Whoever watches a run: the terminal, TensorBoard, other sinks.

None of it can harm the training.
"""
