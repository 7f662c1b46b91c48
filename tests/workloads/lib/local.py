"""A fresh ext4 on a loop device, which the long suites are compared with."""

import subprocess

SIZE = "8G"


class Ext4:
    """Mounted by `with`, which gives its directory; unmounted at the end."""

    def __init__(self, work):
        self.image = work / "ext4.image"
        self.directory = work / "ext4"

    def __enter__(self):
        self.directory.mkdir()
        for command in (["truncate", "-s", SIZE, self.image], ["mkfs.ext4", "-q", self.image]):
            subprocess.run(command, check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.directory], check=True)
        return self.directory

    def __exit__(self, *_):
        # Whatever a suite left running is cut off.
        subprocess.run(["umount", "-l", self.directory], check=False)
