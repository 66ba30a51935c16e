"""The pass: recognise every affine, search a way for it, rewrite, merge branches, keep the record."""
