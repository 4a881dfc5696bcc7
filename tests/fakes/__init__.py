"""Tests of Grove."""
