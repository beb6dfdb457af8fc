"""Numbers as C arrays."""

from collections.abc import Sequence

import numpy as np


def rows(texts: Sequence[str]) -> str:
    """Return the lines between the braces, eight numbers each."""
    return "\n".join("    " + ", ".join(texts[at:at + 8]) + "," for at in range(0, len(texts), 8))


def constants(name: str, values: np.ndarray | Sequence[int], kind: str = "int64_t",
              suffix: str = "ll") -> str:
    """Return `values` as the C array `name`."""
    texts = [f"{value}{suffix}" for value in np.asarray(values).tolist()]
    return f"static const {kind} {name}[] = {{\n{rows(texts)}\n}};\n"
