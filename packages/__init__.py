"""What makes packages of nvmelm for a distribution; nothing of it is installed."""
