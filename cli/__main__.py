"""`python -m cli` is `berth`, for where the command itself is not on the path."""

from cli.main import main

if __name__ == "__main__":
    main(prog_name="berth")
