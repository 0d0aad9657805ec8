"""The ``distributed-pg`` command: for each of its commands a file with its arguments.

The modules import at the top only what parsing needs; ``--help`` must not wait for numpy or Ray.
"""
