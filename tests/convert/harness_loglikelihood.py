#!/usr/bin/env python3
"""Log-likelihoods of lm-evaluation-harness's own Transformers model: harness_loglikelihood.py EXPORT BACKEND REQUESTS.
Prints [sum, is_greedy] for each line {"context", "continuation"} of REQUESTS."""
import json
import sys

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def main():
    folder, backend, requests = sys.argv[1:]
    model = HFLM(
        pretrained=folder, backend=backend, trust_remote_code=True, dtype="float32", batch_size=8, device="cpu"
    )
    lines = [json.loads(line) for line in open(requests, encoding="utf-8")]
    instances = [
        Instance(request_type="loglikelihood", doc={}, arguments=(line["context"], line["continuation"]), idx=0)
        for line in lines
    ]
    for total, is_greedy in model.loglikelihood(instances, disable_tqdm=True):
        print(json.dumps([total, is_greedy]))


if __name__ == "__main__":
    main()
