"""The one root exception: whatever a person can put right is raised as an OutpostError."""


class OutpostError(Exception):
    """A failure told in plain words: the file, the figure and the way out."""
