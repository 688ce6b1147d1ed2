"""Claude, online and in batches. The SDK is known here alone."""
