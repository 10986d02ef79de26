"""The edges to other libraries and programs, each optional and imported when it is asked for."""
