"""sdf: synthetic-document corpora that teach a model why."""

__version__ = "0.1.0"
