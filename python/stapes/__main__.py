"""``python -m stapes``."""

from stapes.cli import main

if __name__ == "__main__":
    main()
