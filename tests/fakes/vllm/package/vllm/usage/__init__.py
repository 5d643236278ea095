"""FAKE vLLM: stands where vLLM 0.32 has this package."""
