"""Decides what may happen: pure functions from mode, intents and places to a ruling."""
