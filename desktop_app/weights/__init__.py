"""Model weights: find, download, read headers, list, judge what will run."""
