"""qwenterm: a terminal assistant and shell agent for a local, quantized Qwen model."""

__version__ = "0.1.0"
