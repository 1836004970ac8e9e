"""The library is named by what it contains."""

from __future__ import annotations

from pov_rt.engine.redis.client.library import COMMON, Library, library


def test_another_function_makes_another_library() -> None:
    one = Library({COMMON: "local a = 1", "10_x.lua": "define('x', {}, x)"})
    two = Library({COMMON: "local a = 1", "10_x.lua": "define('x', {}, y)"})
    assert one.name != two.name
    assert one.function("x") == f"{one.name}_x".encode()
    assert one.code.startswith(f"#!lua name={one.name}\n".encode())
    assert one.name == Library({"10_x.lua": "define('x', {}, x)", COMMON: "local a = 1"}).name


def test_the_package_has_its_functions() -> None:
    assert b"define('probe'" in library().code
