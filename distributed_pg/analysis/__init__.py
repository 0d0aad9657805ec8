"""What runs have learned, read from their files: curves, milestones, pictures, the report."""
