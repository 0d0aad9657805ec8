"""Distributed policy gradients on Atari Pong: numpy policy, Ray workers, exact schedule."""

__version__ = "0.1.0"
