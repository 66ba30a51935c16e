"""Measurements of bnfold next to similar tools; part of the sources, not of the installed package."""
