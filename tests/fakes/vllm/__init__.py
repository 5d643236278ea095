"""The fake vLLM: see README.md."""
