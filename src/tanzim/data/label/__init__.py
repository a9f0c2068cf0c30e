"""Labels from people and from rules: weak supervision, agreement, review, active learning."""
