"""What study.py is made of: steps (steps.py), settings and texts (setting.py, texts.py), statistics
(intervals.py), a file per question (spectra.py, rivals.py, parts.py, rounds.py, search.py), and
what is written (page.py, figures.py). check.py remakes a few numbers.
"""
