"""What a person sees: Rich on stderr, so that stdout stays free for results."""

import json
from typing import Any

from rich.console import Console

console = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


def print_json(result: dict[str, Any]) -> None:
    """Print `result` as one line of JSON on stdout, the form scripts read (`--json`)."""
    print(json.dumps(result, separators=(",", ":"), default=float), flush=True)
