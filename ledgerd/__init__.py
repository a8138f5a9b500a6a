"""ledgerd: a loan servicing ledger in which each loan is an actor over one group-committed journal."""

__version__ = "0.1.0"
