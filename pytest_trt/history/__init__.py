"""Was it always so: one line per case and run, kept for years; what changed, and when."""
