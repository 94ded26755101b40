"""Prompts whose greedy answers are compared token by token."""

PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):",
    "The three laws of thermodynamics are",
    "List of prime numbers: 2, 3, 5, 7,",
    "Dear Sir or Madam,",
    "Q: What is photosynthesis?\nA:",
    "In 1969, Neil Armstrong",
)
