"""Runs a command and prints, as JSON, the most memory it held.

peak.py COMMAND...
"""

import json
import resource
import subprocess
import sys


def main():
    done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"peak_mib": usage.ru_maxrss / 1024}))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
