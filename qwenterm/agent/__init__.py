"""The agent: one loop that asks the model, decides on its calls, runs them, and tells events."""
