"""The gateway: records come in, each is stored once, and what is stored is acknowledged."""

import outpost.device  # noqa: F401  # firmware/ on the path, for the frames
