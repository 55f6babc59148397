"""Human evaluation: a page that annotators open, and the figures of what they answer; needs no server and no network.

`export.py` makes the page and its key, `page.html` is the page, `score.py` reads the answers.
"""
