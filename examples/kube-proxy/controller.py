"""A controller as small as one can be: what stands in the ConfigMap `source` shall stand in `copy`.

    KUBECONFIG=... python controller.py NAMESPACE

It is careless on purpose: what it has been told once it never asks again. `faultline kube proxy`
shows what comes of that (docs/proxy-kubernetes.md).
"""

import sys
import time

import httpx2
from lightkube import ApiError, Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap


def copied(client: Client, source: ConfigMap) -> None:
    """Make `copy` what `source` is."""
    try:
        copy = client.get(ConfigMap, "copy")
    except ApiError as error:
        if error.status.code != 404:
            raise
        client.create(ConfigMap(metadata=ObjectMeta(name="copy"), data=source.data))
        return
    if copy.data != source.data:
        copy.data = source.data
        client.replace(copy)  # names the version that it has read: a conflict if it is old


def main(namespace: str) -> None:
    client = Client(namespace=namespace)
    while True:
        try:
            for event, source in client.watch(ConfigMap, fields={"metadata.name": "source"}):
                if event != "DELETED":
                    copied(client, source)
        except (ApiError, httpx2.HTTPError) as error:
            print(f"again: {error}", flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1])
