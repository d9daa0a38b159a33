"""Compiles every kernel by NVRTC, as the server does at start (src/kernels/cuda/device.rs): python3 .ci/cuda_nvrtc.py LIBRARY SOURCE..."""

import ctypes
import pathlib
import sys

library = pathlib.Path(sys.argv[1])
# It looks for this one by name, which the loader then knows.
builtins = ctypes.CDLL(str(next(library.parent.glob("libnvrtc-builtins.so.*"))))
nvrtc = ctypes.CDLL(str(library))
common = pathlib.Path("src/kernels/cuda/device.cuh").read_text()
options = [b"--std=c++17", b"--fmad=false"]

for path in sys.argv[2:]:
    source = pathlib.Path(path).read_text().replace('#include "../cuda/device.cuh"\n', common, 1)
    for target in (b"80", b"90"):
        program = ctypes.c_void_p()
        assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), path.encode(), 0, None, None) == 0
        arguments = [*options, b"--gpu-architecture=compute_" + target]
        failed = nvrtc.nvrtcCompileProgram(program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        if failed or log.value:
            sys.exit(f"{path} for compute_{target.decode()}: {log.value.decode()}")
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
print(f"NVRTC compiles {len(sys.argv) - 2} sources")
