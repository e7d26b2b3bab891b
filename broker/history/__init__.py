"""History: what Redis keeps of each channel, and how it is read back."""
