"""The whole job: read any file, fold, validate, time, write."""
