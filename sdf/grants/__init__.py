"""What a run lets its workers spend: dollars under a cap, requests under a limit, and what it has cost."""
