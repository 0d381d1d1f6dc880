"""The verdict in the words of those who ask: strings, steps, parameters and trees."""
