# Frozen: the node, and a _boot.py that never formats a file system it can't read.
freeze("modules", "_boot.py")
freeze("$(PORT_DIR)/modules", ("espnow.py", "flashbdev.py"))
include("$(MPY_DIR)/extmod/asyncio")
package("node", base_path="../../firmware", opt=3)
module("main.py", base_path="../../firmware", opt=3)
