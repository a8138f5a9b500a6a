"""What is measured: one function a scenario, from a stage to its findings."""
