"""What the toolchains of other runtimes and chips take, as data with a source and a date for each rule.

A target is one file in `profiles/`. The kinds of its rules are the classes of the modules here, one idea
each; [`obstacles`][bnfold.targets.check.obstacles] lists what stands in a model's way, and
[`plan`][bnfold.targets.plan.plan] says what `bnfold export --target` can do about it.
"""
