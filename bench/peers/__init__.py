"""What ledgerd is compared with."""
