"""FAKE vLLM: the ``vllm`` command."""

from __future__ import annotations

import sys

from vllm import __version__
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    """``vllm --version``, ``vllm serve`` and ``vllm bench serve``; bad flags end with exit status 2."""
    if sys.argv[1:2] in (["--version"], ["-v"]):
        print(__version__)
        return
    if sys.argv[1:3] == ["bench", "serve"]:
        from vllm.fake.bench import bench_serve

        bench_serve(sys.argv[3:])
        return
    if sys.argv[1:2] != ["serve"]:
        sys.exit("usage: vllm serve --config FILE (this is the fake of tests/fakes/vllm)")
    args = make_arg_parser(FlexibleArgumentParser(prog="vllm serve")).parse_args(sys.argv[2:])
    validate_parsed_serve_args(args)
    config = AsyncEngineArgs.from_cli_args(args).create_engine_config()

    from vllm.fake.server import serve

    sys.exit(serve(args, config))


if __name__ == "__main__":
    main()
