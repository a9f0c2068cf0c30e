"""What the server remembers: tables in SQLite or PostgreSQL, and files in a folder or on S3."""
