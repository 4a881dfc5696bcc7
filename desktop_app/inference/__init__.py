"""llama.cpp in a child process, and what it is told."""
