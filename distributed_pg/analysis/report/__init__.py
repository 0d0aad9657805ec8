"""The HTML reports of a run and of a sweep."""
