"""Results side by side: tables, figures, and the published conclusions held against them."""
