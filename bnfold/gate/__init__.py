"""The gate: every model of a repository, asked the questions of `rules/`, with codes, fixes and a baseline.

[`run`][bnfold.gate.run] finds the files ([`discover`][bnfold.gate.discover]), asks the rules about each
in a process that a hostile file can end without harm ([`work`][bnfold.gate.work]), and remembers what it
found ([`cache`][bnfold.gate.cache]).
"""
