"""Step 2: what is there, and what nvmelm has marked of it."""
