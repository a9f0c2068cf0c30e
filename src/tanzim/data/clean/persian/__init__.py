"""Persian made whole: letters, half-spaces, joins broken by PDF extraction, words and sentences."""
