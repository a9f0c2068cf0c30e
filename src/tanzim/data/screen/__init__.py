"""What must not be trained on: personal data, secrets, toxic text, foreign licences, test items."""
