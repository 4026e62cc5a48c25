"""The operations, written once for sync and async callers. Awaits nothing but store methods and the `Runner`."""
