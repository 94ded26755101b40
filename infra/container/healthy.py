"""Exit code 0 while the mesh in this container is ready: GET /readyz answers 200. No key is needed."""

import os
import sys
import urllib.request

PORT = os.environ.get("EXPERTMESH_HTTP_PORT", "8000")

try:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=4) as answer:
        sys.exit(0 if answer.status == 200 else 1)
except OSError as error:
    print(error)
    sys.exit(1)
