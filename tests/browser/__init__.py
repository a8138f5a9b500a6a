"""The console in a real Chromium, driven as people use it. Run by `make test-browser` alone."""
