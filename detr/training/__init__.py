"""A network trained: the program (`train`), what it is asked for (`recipe`), what a step touches (`run`)."""
