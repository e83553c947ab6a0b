"""`python -m tests.benchmarks`."""

# Workers import this file again, and one of them measures its imports: all else is imported by the parent alone.
if __name__ == "__main__":
    from tests.benchmarks.bench import main

    main()
