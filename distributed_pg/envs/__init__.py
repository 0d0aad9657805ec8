"""Environments: what a step is, and what the policy observes. No learning happens here."""
