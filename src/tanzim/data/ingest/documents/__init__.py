"""Documents as sources: PDF, Word, HTML, Markdown and workbooks."""
