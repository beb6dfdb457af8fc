# What is frozen into the firmware: bytecode that runs from flash and costs no heap.
# An import looks through the names in this order.
package("node", base_path="../../firmware", opt=3)
module("main.py", base_path="../../firmware", opt=3)
freeze("modules", "_boot.py")
freeze("$(PORT_DIR)/modules", "rp2.py")
include("$(MPY_DIR)/extmod/asyncio")
