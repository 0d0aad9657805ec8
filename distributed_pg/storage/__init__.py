"""What is kept: tensor files, checkpoints, the folder of a run, its metrics, object stores.

What belongs to a run is defined here; when it is saved is not.
"""
