"""Conformance kit for plugins: does a class keep the contract of its kind?

`rlhf_core.testing.conformance.check_plugin` says so; the pytest fixture `rlhf_conformance` and `rlhf plugins check`
call it. Nothing is imported here, since pytest loads this package at every start.
"""
