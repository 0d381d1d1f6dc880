"""Who owns a controller that is on its way between two hosts."""
