"""The world around a node on the unix port: virtual time, recordings, link, faults.

`python -m outpost.world FOLDER` lives the run described in FOLDER/run.json. The node asks it for
everything outside itself, as docs/world.md says.
"""
