"""What is planned, what is there, what is going on: frozen records, and their text for a terminal."""
