"""Human evaluation: a page that annotators open, and the figures of what they answer; needs no server and no network.

`page.py` makes the page and its key, `page.html` is the page, `annotations.py` reads the answers.
"""
