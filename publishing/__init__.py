"""Pushing what this project makes to the Hub: models, adapters, data sets and the Space.

A package of its own and not part of the trainers: nothing here needs TRL or a model in memory, and whoever pushes a
data set or the Space trains nothing.
"""
