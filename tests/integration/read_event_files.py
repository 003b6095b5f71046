#!/usr/bin/env python3
"""What TensorBoard makes of a run's folder: one JSON object, reader to tag to [step, value] pairs, for both of its
readers: the one in Python and the data server, which the tensorboard program prefers."""
import json
import sys
import tempfile
import time
from pathlib import Path

from tensorboard import context
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.data import server_ingester
from tensorboard.util import grpc_util
from tensorboard.util import tensor_util

EVERYTHING = 1 << 20
DEADLINE_S = 60


def by_python(folder: str) -> dict:
    # TensorBoard turns every scalar into a tensor, whoever reads it.
    accumulator = event_accumulator.EventAccumulator(
        folder, size_guidance={event_accumulator.TENSORS: 0, event_accumulator.SCALARS: 0})
    accumulator.Reload()
    result = {tag: [[e.step, e.value] for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}
    for tag in accumulator.Tags()["tensors"]:
        events = accumulator.Tensors(tag)
        result[tag] = [[e.step, float(tensor_util.make_ndarray(e.tensor_proto))] for e in events]
    return result


def by_data_server(folder: str) -> dict:
    # The server looks for runs below a folder; it shall see this one alone.
    with tempfile.TemporaryDirectory() as parent:
        (Path(parent) / "run").symlink_to(Path(folder).resolve())
        ingester = server_ingester.SubprocessServerDataIngester(
            server_binary=server_ingester.get_server_binary(), logdir=parent, reload_interval=1,
            channel_creds_type=grpc_util.ChannelCredsType.LOCAL, samples_per_plugin={"scalars": EVERYTHING})
        ingester.start()
        provider, ask = ingester.data_provider, context.RequestContext()
        begin = time.monotonic()
        while True:
            names = provider.list_scalars(ask, experiment_id="", plugin_name="scalars").get("run", {})
            read = provider.read_scalars(ask, experiment_id="", plugin_name="scalars", downsample=EVERYTHING)
            result = {tag: [[d.step, d.value] for d in data] for tag, data in read.get("run", {}).items()}
            if names and result.keys() == names.keys():
                return result
            if time.monotonic() - begin > DEADLINE_S:
                raise SystemExit("the data server shows nothing")
            time.sleep(0.2)


def main() -> None:
    print(json.dumps({"python": by_python(sys.argv[1]), "data server": by_data_server(sys.argv[1])}))


if __name__ == "__main__":
    main()
