"""The algorithm: policy, rollout, returns, gradient, RMSProp and training state.

Pure numpy and SciPy; nothing here depends on processes, files or displays.
"""
