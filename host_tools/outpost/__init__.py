"""Outpost's host side: models, images, the gateway and the virtual world."""

__version__ = "0.1.0"
