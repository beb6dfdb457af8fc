"""The gateway: records come in, each is stored once, and what is stored is acknowledged."""
