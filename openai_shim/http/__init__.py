"""HTTP beneath every route: who may ask, how a request is read, what goes wrong and where it is logged."""
