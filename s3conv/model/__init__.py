"""What a conversation is: tree, messages, state, schema versions, merge. Pure: no I/O, no clock but `utcnow`."""
