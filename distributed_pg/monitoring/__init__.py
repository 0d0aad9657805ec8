"""Shows a run in the terminal, a notebook, TensorBoard and other sinks.

A failure in here never stops the training.
"""
