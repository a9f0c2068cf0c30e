"""What can be seen from outside: metrics, traces, a log of requests."""
