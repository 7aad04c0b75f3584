"""The contract in JSON, as plain functions: what comes in a request's metadata, what goes back in a reply's trailers."""

import json

# Names the state in the request's metadata and the changes in the reply's trailers.
KEY = "holdfast-state"

# The reply has 32 bits.
MAX_VISITS = 2**32 - 1


def visits(metadata):
    """Visits known so far, from the metadata of a request: 0 for a page that nobody visited yet.

    The metadata has, for example:
    {"type":"visits.Page","key":"home","exists":true,"version":"…","value":{"gcounter":"41"}}
    Numbers of 64 bits are strings, as in all JSON that protobuf writes.
    """
    for key, value in metadata:
        if key == KEY:
            return int(json.loads(value).get("value", {}).get("gcounter", 0))
    return 0


def one_more():
    """The trailers that add one visit."""
    return ((KEY, json.dumps({"operations": [{"increment": {"by": 1}}]})),)


def shown(count):
    return min(count, MAX_VISITS)
