"""Puts the recipe's folder on the import path: its files are programs beside the app."""

import sys
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[3] / "packaging" / "starter_model"

if str(RECIPE) not in sys.path:
    sys.path.insert(0, str(RECIPE))
