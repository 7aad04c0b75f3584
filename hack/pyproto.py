"""Writes the Python code of one .proto file beside it: pyproto.py FOLDER FILE."""

import os
import sys

import google.api
from grpc_tools import protoc

folder, name = sys.argv[1:]
apis = os.path.dirname(os.path.dirname(list(google.api.__path__)[0]))
well_known = os.path.join(os.path.dirname(protoc.__file__), "_proto")
sys.exit(protoc.main([
    "protoc", f"-I{folder}", f"-I{apis}", f"-I{well_known}",
    f"--python_out={folder}", f"--grpc_python_out={folder}", name,
]))
