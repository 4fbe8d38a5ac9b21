"""The body of each command: ``main(argv, prog)`` reads its arguments and does the work."""
