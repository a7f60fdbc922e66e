"""Small kernels written by hand, and single instructions run on arrays."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tests.ptx.execution import Counts, execute
from tests.ptx.memory import GlobalMemory
from tests.ptx.number_formats import Array
from tests.ptx.threads import WARP

_REGISTERS = ".reg .pred %p<9>; .reg .b16 %rs<20>; .reg .b32 %r<40>; .reg .b64 %rd<40>;"
_PREFIXES = {8: "%rs", 16: "%rs", 32: "%r", 64: "%rd"}


def kernel(body: str, num_pointers: int = 1) -> str:
    """A kernel of pointers, loaded in %rd30 and on; %r30 is the thread's number, %rd29 the same in 64 bits."""
    parameters = ", ".join(f".param .u64 .ptr .global .align 1 p{number}" for number in range(num_pointers))
    loads = "".join(f"ld.param.b64 %rd{30 + number}, [p{number}];\n" for number in range(num_pointers))
    return (
        ".version 8.6\n.target sm_90a\n.address_size 64\n.extern .shared .align 16 .b8 global_smem[];\n"
        f".visible .entry by_hand({parameters})\n{{\n{_REGISTERS}\nmov.u32 %r30, %tid.x;\ncvt.u64.u32 %rd29, %r30;\n"
        f"{loads}{body}\nret;\n}}\n"
    )


def run(ptx: str, *arrays: Array, num_warps: int = 1, grid: int = 1, shared_bytes: int = 0) -> Counts:
    """Execute a kernel of pointers to the arrays."""
    memory = GlobalMemory()
    tensors = [torch.from_numpy(array) for array in arrays]
    for number, tensor in enumerate(tensors):
        memory.add(tensor, f"array {number}")
    pointers = [tensor.data_ptr() for tensor in tensors]
    return execute(ptx, grid=grid, num_warps=num_warps, shared_bytes=shared_bytes, arguments=pointers, memory=memory)


def apply(name: str, result: type[np.generic], *operands: Array | int) -> Array:
    """What one instruction makes of arrays of equal length, or numbers in its text; booleans are predicates."""
    arrays = [operand for operand in operands if not isinstance(operand, int)]
    count = len(arrays[0])
    padded = -(-count // WARP) * WARP
    memory = [_stored(np.resize(array, padded)) for array in arrays]
    out = np.zeros(padded, np.uint8 if result is np.bool_ else result)
    loads: list[str] = []
    registers: list[str] = []
    for operand in operands:
        if isinstance(operand, int):
            registers.append(str(operand))
            continue
        number = len(loads)
        loads.append(_load(number, operand))
        registers.append(f"%p{number}" if operand.dtype == np.bool_ else f"{_prefix(operand.dtype)}{number}")
    own = "%p8" if result is np.bool_ else f"{_prefix(out.dtype)}19"
    body = "\n".join(loads) + f"\n{name} {own}, {', '.join(registers)};\n{_store(len(arrays), out.dtype, own)}"
    run(kernel(body, len(arrays) + 1), *memory, out, num_warps=padded // WARP)
    return out[:count].astype(result)


def _stored(array: Array) -> Array:
    return np.ascontiguousarray(array.view(np.uint8) if array.dtype == np.bool_ else array)


def _prefix(dtype: np.dtype[np.generic]) -> str:
    return _PREFIXES[8 * dtype.itemsize]


def _address(number: int, size: int) -> str:
    return f"mad.lo.s64 %rd28, %rd29, {size}, %rd{30 + number};"


def _load(number: int, array: Array) -> str:
    size = array.dtype.itemsize
    kind = f"{'s' if array.dtype.kind == 'i' else 'u'}{8 * size}"
    load = f"{_address(number, size)}\nld.global.{kind} {_prefix(array.dtype)}{number}, [%rd28];"
    return load + f"\nsetp.ne.b16 %p{number}, %rs{number}, 0;" if array.dtype == np.bool_ else load


def _store(number: int, dtype: np.dtype[np.generic], register: str) -> str:
    if register == "%p8":
        return f"selp.b16 %rs19, 1, 0, %p8;\n{_address(number, 1)}\nst.global.u8 [%rd28], %rs19;"
    return f"{_address(number, dtype.itemsize)}\nst.global.b{8 * dtype.itemsize} [%rd28], {register};"


def every_pair(values: ArrayLike, dtype: type[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """All ordered pairs of values, as two arrays."""
    array = np.array(values, dtype)
    return np.repeat(array, len(array)), np.tile(array, len(array))
