"""`bnfold fleet`: what `check`, `fold` and `export` do to one model, done to every model of a zoo.

The coordinator ([`run`][bnfold.fleet.run]) finds the models ([`sources`][bnfold.fleet.sources],
[`manifest`][bnfold.fleet.manifest]), keeps the list of them in a temporary file
([`ledger`][bnfold.fleet.ledger]), leaves out those that have a result, and gives the others to an engine
([`engines`][bnfold.fleet.engines]), which knows nothing of models. On each of its workers,
[`worker`][bnfold.fleet.worker] fetches a model, has [`work`][bnfold.fleet.work] look at it in a process of
its own ([`alone`][bnfold.fleet.alone]), and stores the result ([`results`][bnfold.fleet.results]), so that
nothing is lost when the coordinator ends. [`summary`][bnfold.fleet.summary] adds all of them up.
"""
