"""Optuna's gRPC proxy before the study's database: hundreds of workers, a dozen connections.

On a machine that the workers reach, with the database's URL in the environment:

    OPTUNA_STORAGE=postgresql+psycopg://… python docs/examples/grpc_proxy.py --host 0.0.0.0

and on theirs:

    python optimize.py --storage grpc://HOST:13000

The proxy has neither password nor encryption: let no other network reach its port.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import optuna
from optuna.storages import get_storage, run_grpc_proxy_server

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from config import InputError
from tuning.storage import open_storage


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="localhost", help="address to listen on")
    parser.add_argument("--port", type=int, default=13000, help="port to listen on")
    arguments = parser.parse_args()
    url = os.environ.get("OPTUNA_STORAGE")
    if not url:
        sys.exit("OPTUNA_STORAGE is not set; it must be the URL of the study's database.")
    try:
        storage = open_storage(url)
    except InputError as error:
        sys.exit(f"error: {error}")
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    # With Optuna's cache, or every look at the study would read all of it from the database.
    run_grpc_proxy_server(get_storage(storage), host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
