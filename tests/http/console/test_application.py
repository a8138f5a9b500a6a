from __future__ import annotations

from ledgerd.config import Console
from ledgerd.http.console.assets import address_of


async def test_it_can_be_left_out(open_world):
    async with open_world(console=Console(enabled=False)) as world:
        for path in ("/console/", "/console/login", address_of("console.css")):
            assert (await world.get(path)).status == 404


async def test_it_is_there_with_and_without_the_slash(world):
    for path in ("/console", "/console/"):
        async with world.client.get(path, allow_redirects=False) as response:
            assert response.headers["Location"].startswith("/console/login")
