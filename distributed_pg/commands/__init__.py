"""The commands of ``distributed-pg``: for each its arguments and what it does.

These modules import at the top only what parsing needs; ``--help`` must not wait for numpy or Ray.
"""
