"""The tools that the model calls: records whose work is bounded and whose changes are effects."""
