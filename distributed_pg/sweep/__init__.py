"""Trains many runs at once, with several seeds and settings, and resumes where it was stopped.

Each trial is an ordinary run in a folder of its own, trained by a process of its own; all share one
Ray. What the trials show together is in :mod:`distributed_pg.analysis`.
"""
