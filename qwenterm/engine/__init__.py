"""llama.cpp behind a narrow door: load, tokenize, evaluate, sample."""
