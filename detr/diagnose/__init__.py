"""What a detector gets wrong on a set, by kind, class, size and place, and the page that shows it."""
