"""deploy/ against the real Prometheus. Run by `make check-deploy` alone."""
