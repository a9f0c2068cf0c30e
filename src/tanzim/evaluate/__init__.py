"""Stage 5: tasks, statistics, diagnosis."""
