"""Step 6 on one host: suspend, save, restore and resume."""
