"""Persistence: tensor files, checkpoints, a run's folder and metrics, object stores.

This package defines what a run consists of on disk, not when it is saved.
"""
