"""Our packages have plain words for names, so nothing that is installed beside them may bring one of these."""

from importlib.metadata import packages_distributions

OURS = ("domain", "eventlog", "commands", "projections", "messaging", "api", "portal", "workers", "cli", "bench")


def test_no_dependency_brings_a_package_with_one_of_our_names() -> None:
    brought = packages_distributions()
    foreign = {name: set(brought.get(name, [])) - {"berth-cloud"} for name in OURS}
    assert not {name: distributions for name, distributions in foreign.items() if distributions}
