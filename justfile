# Sugar over ./dev, which needs nothing installed.

default:
    @./dev help

setup:
    ./dev setup

demo *ARGS:
    ./dev demo {{ARGS}}

test *ARGS:
    ./dev test {{ARGS}}

lint:
    ./dev lint

bench WHICH *ARGS:
    ./dev bench {{WHICH}} {{ARGS}}
