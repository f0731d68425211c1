"""The pieces of the Space: one module per tab, and what they share."""
