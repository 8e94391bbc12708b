"""The resident process that keeps the model loaded and answers over HTTP."""
