"""Node classification by a mixture of a weak and a strong expert."""
