"""emlearn, without what importing 0.23.2 does: NumPy would raise at every underflow after it."""

import numpy as np

with np.errstate():  # restores what is set inside
    from emlearn import convert
    from emlearn.mixture import convert_to_full, get_log_weights

__all__ = ["convert", "convert_to_full", "get_log_weights"]
