"""The awake role changes machines: handed over step by step, taken over by the rules, or forced."""
