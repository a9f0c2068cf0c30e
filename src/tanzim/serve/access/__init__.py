"""Who may do what: keys, roles, projects, limits, and the trail of what was done."""
