"""How the teacher is asked to write: beginnings of texts, so that what follows is its own. Pure.

Rules: token ids of beginnings, drawn by a seed; knows no model. Nothing but the words of a chat's frame and a few
openings of our own is given, the rest (also what a user asks) is the teacher's.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Encode = Callable[[str], list[int]]

END_OF_TEXT = "<|endoftext|>"
SYSTEM = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
)
USER = "<|im_start|>user\n"
ASKED = (
    "What", "How do I", "Why", "Write a short story about", "Explain", "Can you", "Who was", "Give me a list of",
    "Summarize the following text:", "Write a letter", "Rewrite this:", "I am", "Tell me about", "Is it true that",
    "Write a Python function", "Compare", "Describe", "Hello", "Translate", "What is the capital of",
)  # fmt: skip
OPENINGS = (
    "Chapter I.\n\n", "CHAPTER II\n\nIt was", "\"My dear sir,\" said", "Once upon a time", "In the year 18",
    "Dear Sir,\n\n", "The old house", "He had never", "She looked at him", "It has often been said that",
    "\"Where are you going?\" asked", "To the people of", "The history of", "There was a man who", "Whereas",
    "On the morning of", "I had known", "The first thing that", "Of all the", "My friend and I",
    "It was a cold evening when", "\"I cannot believe it,\" said", "Mr.", "Mrs.", "Miss", "The captain", "Her sister",
    "It is a truth", "When in the course of", "No one who had ever seen", "The room was", "\"Pray tell me,\" she said,",
    "There was nothing in the world", "The garden was full of", "His father had", "We had been travelling for",
    "Upon my word,", "The king of", "At the end of the street", "A letter had come", "\"What do you think,\" asked",
    "For many years", "The sea was", "The doctor shook his head", "I remember", "She had been sitting",
    "Now it happened",
    "The door opened and", "In those days", "They walked on in silence", "The train", "It seemed to me that",
    "Nothing could be more", "The young man", "All men are", "We, the people", "The laws of nature", "He took up",
    "\"Oh dear!\" cried", "So she began", "The two of them", "Toward evening", "The old man looked at",
    "This government", "Many people believe", "The book is about", "Scientists have", "The city of", "According to",
)  # fmt: skip


def draw(encode: Encode, vocab: int, number: int, seed: int) -> tuple[list[list[int]], list[float]]:
    """(beginnings, sampling temperatures): chats and openings of prose (two fifths each), and single random words."""
    rng = random.Random(seed)
    frames = [encode(SYSTEM + USER), encode(USER)]
    begins: list[list[int]] = []
    temperatures: list[float] = []
    for _ in range(number):
        kind = rng.random()
        if kind < 0.4:
            begin = frames[0] if rng.random() < 0.8 else frames[1]
            if rng.random() < 0.5:
                begin = begin + encode(rng.choice(ASKED))
            temperature = rng.choice((0.7, 1.0))
        elif kind < 0.8:
            begin = encode(END_OF_TEXT + rng.choice(OPENINGS))
            temperature = rng.choice((0.8, 1.0))
        else:
            begin = [*encode(END_OF_TEXT), rng.randrange(17, vocab)]
            temperature = rng.choice((0.8, 1.0))
        begins.append(begin)
        temperatures.append(temperature)
    return begins, temperatures
