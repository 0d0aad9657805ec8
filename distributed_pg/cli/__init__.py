"""The ``distributed-pg`` command: one module per subcommand, with its arguments.

Top-level imports are limited to what parsing needs, so that ``--help`` does not wait for numpy or
Ray.
"""
