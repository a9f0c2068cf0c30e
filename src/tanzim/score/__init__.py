"""(prompt, completion) → Score."""
