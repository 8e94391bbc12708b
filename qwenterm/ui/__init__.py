"""Front ends: they render events and answer approvals, and know nothing of how a turn works."""
