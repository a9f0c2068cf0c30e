"""Fine-tuning jobs: a durable queue, and a process of its own for each."""
