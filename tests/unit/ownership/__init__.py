"""Who owns a controller on its way: the table of decisions."""
