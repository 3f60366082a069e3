"""Where the files of a model come from: one module for each kind of source."""
