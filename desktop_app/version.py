"""The version of Grove, in one place."""

VERSION = "0.1.0"
