"""What an emulated controller does."""
