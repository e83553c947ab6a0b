"""One module a command, each with `main(arguments) -> exit code`; heavy imports wait until it runs."""
