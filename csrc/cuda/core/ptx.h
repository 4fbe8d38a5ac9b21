// The instructions of tensor cores, each as a function.  All lanes of a warp call them together.  The
// numbers of a matrix lie in the lanes' registers as the PTX manual's chapter on mma and ldmatrix shows.
//
// Registers are 32 bits wide.  Each holds a float or two neighbouring bfloat16, the first in its lower
// half. The emulation has the same functions, in csrc/cuda_emulation/mma.h.
#pragma once

#include "vector.h"

namespace minicnn::cuda {

// Two numbers rounded to bfloat16, the first in the lower half.
__device__ __forceinline__ unsigned two_bfloat16(const Vector<float, 2>& values) {
    return to_bfloat16(values.v[0]).bits | unsigned(to_bfloat16(values.v[1]).bits) << 16;
}

}  // namespace minicnn::cuda

#if defined(MINICNN_CUDA_EMULATION)
#include <mma.h>
#else

namespace minicnn::cuda {

// ldmatrix: four matrices of 8 rows of 16 bytes.  `row` is a row of shared memory: lanes 0-7 name the rows
// of the first matrix, lanes 8-15 those of the second, and so on.  The lane gets 4 bytes of each matrix: in
// row lane / 4, the bytes from 4 * (lane % 4) on.
__device__ __forceinline__ void load_matrices(unsigned (&registers)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(unsigned(__cvta_generic_to_shared(row))));
}

// The same with each matrix of 8 x 8 numbers of 16 bits transposed.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&registers)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(unsigned(__cvta_generic_to_shared(row))));
}

// The lane's own number in shared memory.
__device__ __forceinline__ unsigned load_word(const float* at) { return __float_as_uint(*at); }

// sum += a * b: 16 x 8 sums, and 16 bfloat16 along k.
__device__ __forceinline__ void multiply_bfloat16(float (&sum)[4], const unsigned (&a)[4],
                                                  const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// sum += a * b: 16 x 8 sums, and 8 numbers of TF32 along k.
__device__ __forceinline__ void multiply_tf32(float (&sum)[4], const unsigned (&a)[4],
                                              const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A float rounded to the 10 bits of mantissa that TF32 has: to the nearest, away from zero in the middle.
__device__ __forceinline__ unsigned round_to_tf32(unsigned bits) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
}

}  // namespace minicnn::cuda

#endif
