"""The step of a game, compiled, for workers that have numba (the ``[fast]`` extra).

It has the bits of :mod:`distributed_pg.envs` and :mod:`distributed_pg.algo`, which work without it
and are what to read.
"""
