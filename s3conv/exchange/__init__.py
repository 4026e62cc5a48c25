"""Other people's formats, in and out: files become conversations, conversations become lines of a file.

Law: what cannot be read is a `Problem` that says where and why, never an exception and never silence. Nothing here
prints or reads the environment; that is the command line's business.
"""
