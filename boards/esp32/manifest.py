# Frozen: the node, and a _boot.py that never formats a file system it can't read.
include("../node.py", without=("board/rp2", "board/unix", "sensor/replay", "uplink/serial"))
freeze("modules", "_boot.py")
freeze("$(PORT_DIR)/modules", ("espnow.py", "flashbdev.py"))
