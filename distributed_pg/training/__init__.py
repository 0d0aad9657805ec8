"""The learner and its schedule: which episode is next, who plays it, what an update sums.

Workers are behind the interface of a pool; that they are Ray actors is not known here.
"""
