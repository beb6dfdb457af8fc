"""Where the checkout keeps its parts."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "firmware"
NATIVE = FIRMWARE / "native"
MODELS = ROOT / "models"
BOARDS = ROOT / "boards"
WORLDS = ROOT / "worlds"
BUILD = ROOT / "build"
