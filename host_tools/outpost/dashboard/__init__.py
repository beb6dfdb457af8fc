"""The fleet in a browser: docs/dashboard.md."""
