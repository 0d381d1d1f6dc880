"""Step 5: hand a virtual function to a virtual machine, and take it back."""
