"""``python -m realtime``: the command line."""

from realtime.cli.main import app

if __name__ == "__main__":
    app(prog_name="realtime")
