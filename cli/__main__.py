"""`python -m bnfold_cli` is `bnfold`."""

from . import main

main(prog_name="bnfold")
