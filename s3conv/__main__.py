"""`python -m s3conv` is the command `s3conv`."""

from s3conv.cli import main

if __name__ == "__main__":
    main()
