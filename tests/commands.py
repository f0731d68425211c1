"""The verbs as a user calls them: through `spatialboost_cli.main`, which turns mistakes into exit codes."""

import spatialboost_cli


def boost(argv):
    return spatialboost_cli.main(["boost", *argv])


def build(argv):
    return spatialboost_cli.main(["build", *argv])


def evaluate(argv):
    return spatialboost_cli.main(["evaluate", *argv])


def train(argv):
    return spatialboost_cli.main(["train", *argv])


def publish(argv):
    return spatialboost_cli.main(["publish", *argv])


def inspect(argv):
    return spatialboost_cli.main(["inspect", *argv])
