"""Was it better: baselines in small JSON files that belong in git."""
