"""Model files: what is known, what is on disk, what fits this machine, and how to fetch it."""
