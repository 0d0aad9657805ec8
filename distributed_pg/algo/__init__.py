"""The method: policy, returns, an episode with its gradient, RMSProp, the state of training.

Pure numpy. Nothing here knows of processes, files or screens.
"""
