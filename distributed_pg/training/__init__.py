"""The learner and its schedule: which episode is next, who plays it, what an update sums.

The learner sees workers only through the WorkerPool interface; nothing here depends on Ray.
"""
