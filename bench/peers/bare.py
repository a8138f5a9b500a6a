"""The ceiling of the front end: aiohttp and uvloop, one POST route that reads the body and answers a
constant.

`python -m bench.peers.bare PORT`
"""

import sys

import uvloop
from aiohttp import web


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b'{"status":"applied"}', content_type="application/json")


def main() -> None:
    app = web.Application()
    app.router.add_post("/api/make-payment/", answer)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, loop=loop, print=None)


if __name__ == "__main__":
    main()
