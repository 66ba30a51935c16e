"""Measurements of bnfold beside its neighbours; part of the sources, not of the installed package."""
