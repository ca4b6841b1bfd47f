"""The live drill between two machines, its signed results, and the gates they open and shut."""
