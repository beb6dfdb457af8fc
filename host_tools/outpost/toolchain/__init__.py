"""Compilers and interpreters Outpost needs: found on the machine, or fetched into the cache."""
