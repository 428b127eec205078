"""Stage 3: questions to the store become files, links and numbers."""
