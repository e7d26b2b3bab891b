"""Topics: each channel as this daemon hands it on, with history or without."""
