"""The feedback store, its snapshots, and what they are turned into for learning."""
