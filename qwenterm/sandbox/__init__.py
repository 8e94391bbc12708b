"""Runs commands behind kernel boundaries: bubblewrap, else Landlock, else it says so."""
