"""Runs inside a container, by itself: uses the GPU through the driver's own library, without any package.

Fills a megabyte of the GPU's memory on the GPU and reads it back. `python3 -` gets this file on standard input, so it
imports nothing of the course. The calls: https://docs.nvidia.com/cuda/cuda-driver-api/
"""

import ctypes
import sys

SIZE = 1 << 20
PATTERN = 0xC0FFEE


def main() -> None:
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: object) -> None:
        status = getattr(cuda, name)(*arguments)
        if status != 0:
            sys.exit(f"{name} answered {status}")

    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    name = ctypes.create_string_buffer(100)
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, 100, device)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(SIZE))
    call("cuMemsetD32_v2", memory, ctypes.c_uint(PATTERN), ctypes.c_size_t(SIZE // 4))
    words = (ctypes.c_uint32 * (SIZE // 4))()
    call("cuMemcpyDtoH_v2", words, memory, ctypes.c_size_t(SIZE))
    if any(word != PATTERN for word in words):
        sys.exit("the GPU's memory did not hold what was written")
    print(name.value.decode())


if __name__ == "__main__":
    main()
