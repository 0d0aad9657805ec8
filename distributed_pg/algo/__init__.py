"""The method: policy, gradient, returns, an episode, RMSProp, the state of training.

Pure numpy. Nothing here knows of processes, files or screens.
"""
