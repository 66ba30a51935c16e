"""`python -m bnfold` is the `bnfold` command."""

from bnfold_cli import main

main(prog_name="bnfold")
