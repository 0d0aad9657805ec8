"""Trains many runs at once, with several seeds and settings, and resumes where it was stopped.

Each trial is an ordinary run in a folder of its own, trained by a ``train`` process of its own; all
share one Ray. What the trials show together is in :mod:`distributed_pg.analysis`.

Ray Tune was tried first. It restores an experiment by unpickling files of its folder, which no code
here does, and needs 254 MB more of libraries; its placement groups deadlock with actors that are
spread; and after the death of a raylet its driver exits with code 0.
"""
