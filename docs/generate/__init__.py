"""What the reference says, read off the code whenever the pages are built.

A module gives the Markdown of one page by `text()`; `weave` puts it where the page has the line
`<!-- generated: NAME -->`. What the code has and a module cannot explain is an error, so that no
page can fall behind.
"""
