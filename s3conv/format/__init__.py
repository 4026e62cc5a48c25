"""What lies in the bucket: keys, documents, entries, intents, filters. Pure: no I/O."""
