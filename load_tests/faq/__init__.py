"""Frequently asked questions, as a labelled workload: intents, paraphrases and hard negatives, English and Chinese."""
