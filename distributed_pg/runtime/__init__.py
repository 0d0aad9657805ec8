"""Ray: starting it or joining a cluster, noticing that it is gone, actors that are workers.

The only package besides the benchmark that imports ray.
"""
