"""docs/gpu-kernels.md from what `ptxas -v` said: python3 .ci/cuda_table.py LOG"""

import re
import sys

HEAD = """# The CUDA kernels, as compiled

Registers a thread and bytes of static shared memory, by `ptxas` 13.0 for A100 (sm_80) and H100 (sm_90). No kernel spills
registers or has a stack frame; `.ci/cuda` compiles them anew, fails on both and compares this table.
[gpu.md](gpu.md) says what they do and how much dynamic shared memory they take.

| kernel | registers, sm_80 | registers, sm_90 | static shared bytes |
| --- | --- | --- | --- |"""

ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")

kernels = {}
name = target = None
for line in open(sys.argv[1]):
    if entry := ENTRY.search(line):
        name, target = entry.groups()
    elif frame := FRAME.search(line):
        if any(int(count) for count in frame.groups()):
            sys.exit(f"{name} for sm_{target}: {frame.group()}")
    elif used := USED.search(line):
        shared = SHARED.search(line)
        kernels.setdefault(name, {})[target] = (used.group(1), shared.group(1) if shared else "0")

print(HEAD)
for name, targets in sorted(kernels.items()):
    (first, shared), (second, _) = targets["80"], targets["90"]
    print(f"| `{name}` | {first} | {second} | {shared} |")
