#!/usr/bin/env python3
"""What the image with CUDA promises, held to containers that run, without a GPU: tests/deploy/image.sh cuda builds it and calls this.

    image_cuda.py FOLDER IMAGE PODMAN…  FOLDER has what image.py wants, host_driver.so and no_device.so

Where NVIDIA's container toolkit would put the driver, one without a device is mounted, and where a device is wanted, one is loaded in front of
it whose device is a process of the host. With that cuBLAS, cuRAND and NVRTC are loaded but not called, so NVRTC is tried by itself.
"""
import subprocess
import tarfile
import tempfile
import time

from asking import ROOT
from containers import FOLDER, IMAGE, container, expect, inspected, likes, podman, ready
from image import listed, on_disk

DRIVER = "/usr/lib/x86_64-linux-gnu/libcuda.so.1"
# The host's device notes of every second byte of its memory who touched it: 7 GiB for the embedded model.
SMALL = ["--kv-cache-bytes=24MiB", "--max-model-len=128", "--adapter-device-bytes=1MiB"]
LIMITED = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=10g", "--pids-limit=256"]
WHEELS = ("nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-curand")


NO_DEVICE = [f"--volume={FOLDER / 'no_device.so'}:{DRIVER}:ro"]
# In front of the other one, whose functions a server is bound to and never calls.
HOST = [*NO_DEVICE, f"--volume={FOLDER / 'host_driver.so'}:/driver/host.so:ro", "--env=LD_PRELOAD=/driver/host.so"]


def inside(names):
    libraries = {name.rsplit("/", 1)[-1] for name in names if name.startswith("usr/local/cuda/lib64/")}
    expect("the driver is not in it", not [name for name in names if "libcuda.so" in name])
    expect("nor a compiler, nor an archive to link with", not [name for name in names if name.endswith(("nvcc", "ptxas", "cicc", ".a", ".h"))])
    expect("the libraries' licences are", sum("dist-info" in name and "icense" in name.rsplit("/", 1)[-1] for name in names) >= len(WHEELS),
           [name for name in names if "dist-info" in name])
    return libraries


def kernels():
    """The server's kernels, compiled by the image's NVRTC, which wants its builtins beside it."""
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "src/kernels").rglob("*.cu") if "shim" not in path.parts)
    with tempfile.TemporaryDirectory() as work, tarfile.open(FOLDER / "dept.tar") as image:
        for layer in (member for member in image.getmembers() if member.name.endswith(".tar") and member.isfile()):
            with tarfile.open(fileobj=image.extractfile(layer)) as files:
                for file in files.getmembers():
                    if "cuda/lib64/libnvrtc" in file.name:
                        files.extract(file, work)
        done = subprocess.run(["python3", ".ci/cuda_nvrtc.py", f"{work}/usr/local/cuda/lib64/libnvrtc.so.13", *sources], cwd=ROOT,
                              capture_output=True, text=True, check=False)
    expect("its NVRTC compiles the kernels", done.returncode == 0, done.stdout + done.stderr)


def without():
    done = podman("run", "--rm", IMAGE, check=False)
    expect("without a driver: 127, and its name", done.returncode == 127 and "libcuda.so.1" in done.stderr, done)
    print(f"    {done.stderr.strip()}")
    done = podman("run", "--rm", *NO_DEVICE, "-e", "DEPT_ALLOW_ANONYMOUS=true", IMAGE, check=False)
    said = done.stdout + done.stderr
    expect(f"with a driver and no device: {done.returncode}, and why", done.returncode not in (0, 127) and "CUDA device 0 can" in said
           and "NO_DEVICE" in said, done)
    print(f"    {said.strip().splitlines()[-1][:200]}")


def answers():
    began = time.monotonic()
    done = podman("run", "--rm", *LIMITED, *HOST, IMAGE, "generate", "--device=cuda:0", *SMALL, "--adapter=sst2",
                  "--input=sentence=a warm , funny and moving film .")
    expect(f"on the host's device it answers ({time.monotonic() - began:.0f} s)", done.stdout.strip() == "positive", done)


def serves():
    options = [*LIMITED, *HOST, "-e", "DEPT_ALLOW_ANONYMOUS=true"]
    with container("dept-cuda", *options, command=("serve", *SMALL)) as address:
        ready("dept-cuda")
        expect("it serves", likes(address))
        expect("the probe of the image", podman("healthcheck", "run", "dept-cuda").returncode == 0)
        log = podman("logs", "dept-cuda")
        expect("on the device, unasked", "computing on the CPU" not in log.stdout + log.stderr, log)
        podman("stop", "--time=20", "dept-cuda")
        ended = inspected("dept-cuda")["State"]
        expect("SIGTERM drains, 0", ended["ExitCode"] == 0, ended)


def main():
    names = on_disk(most=1024)
    libraries = inside(names)
    print(f"    {', '.join(sorted(libraries - {''}))}")
    listed(*WHEELS)
    kernels()
    without()
    answers()
    serves()


if __name__ == "__main__":
    main()
