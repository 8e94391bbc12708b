"""The Textual interface: renders a turn's events and answers its questions."""
