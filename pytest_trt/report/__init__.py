"""Who is told: a record per case, as data, then as lines, then as a file."""
