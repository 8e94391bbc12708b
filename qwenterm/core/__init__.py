"""Vocabulary shared by both sides: plain data with no behaviour that needs a library."""
