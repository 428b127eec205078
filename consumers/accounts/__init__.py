"""Which lines arrived, and how many of a day were lost."""
