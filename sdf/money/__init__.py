"""Money as a worker sees it: what a request costs, what it may spend, what it says of that."""
