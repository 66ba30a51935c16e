"""The functions of `import bnfold`: any model goes in, progress is shown, errors name keywords."""
