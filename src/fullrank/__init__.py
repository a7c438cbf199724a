"""Self-supervised pre-training of joint-embedding models that measures, explains and prevents collapse."""

__version__ = "0.1.0"
