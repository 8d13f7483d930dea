"""`python -m gradledger_server` is the command `gradledger`."""

from gradledger_server.cli import main

if __name__ == "__main__":
    main()
