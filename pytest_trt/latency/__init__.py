"""Is it fast: samples, their summary, and the gate. ``stats`` and ``gate`` are pure."""
