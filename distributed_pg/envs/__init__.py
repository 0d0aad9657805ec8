"""The games: what a step is, and what the policy sees of it.

Nothing here learns.
"""
