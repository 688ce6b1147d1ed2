"""vLLM in the worker's own process: an engine, its arguments, its start, and what watches over it."""
