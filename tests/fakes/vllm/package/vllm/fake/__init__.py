"""FAKE vLLM: what stands in for the engine. Nothing here exists in vLLM."""
