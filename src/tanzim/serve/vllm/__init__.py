"""vLLM behind the gateway, in a process and an environment of its own."""
