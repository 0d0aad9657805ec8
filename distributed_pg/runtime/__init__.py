"""Ray: starting it, joining a cluster, detecting its failure, and running workers as actors.

Only this package and the benchmark import ray.
"""
